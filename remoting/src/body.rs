//! The body of a command: bytes that may lie in several places, so that messages leave the
//! commit log's mapping by a vectored write without being copied together first.

use bytes::{Bytes, BytesMut};

/// Zero or more slices that make up a command's body, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// No body at all.
    #[default]
    Empty,
    /// One slice; what decoding always yields for a body that is there.
    One(Bytes),
    /// Several slices, written one after the other.
    Parts(Vec<Bytes>),
}

impl Body {
    /// Length in bytes over all slices.
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(bytes) => bytes.len(),
            Self::Parts(parts) => parts.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body as one slice; copies only where it lies in several.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Parts(parts) => {
                let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                for part in parts {
                    whole.extend_from_slice(&part);
                }
                whole.freeze()
            }
        }
    }

    /// A cheap handle on the bytes of a decoded body; copies only where it lies in several slices.
    pub fn bytes(&self) -> Bytes {
        self.clone().into_bytes()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::One(bytes) }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(mut parts: Vec<Bytes>) -> Self {
        match parts.len() {
            0 => Self::Empty,
            1 => parts.pop().map_or(Self::Empty, Self::from),
            _ => Self::Parts(parts),
        }
    }
}
