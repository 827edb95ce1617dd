//! Frames: `i32 length | u8 serialize type, u24 header length | header | body`, big-endian.
//!
//! The length counts everything after its own four bytes. A header is JSON or RocketMQ's binary
//! form, by the type byte; an answer is written in the form of its request.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::body::Body;
use crate::command::{Command, SerializeType};
use crate::error::FrameError;
use crate::{binary_header, json_header};

/// What a frame may measure, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// The whole frame with its length word: 16 MiB as in Java (`com.rocketmq.remoting.frameMaxLength`).
    pub frame: usize,
    /// The header: 1 MiB here. Properties are 32 KiB at most, so that no real request comes near.
    pub header: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { frame: 16 * 1024 * 1024, header: 1024 * 1024 }
    }
}

/// Takes one whole frame off the front of `buffer`.
///
/// `Ok(None)` means that more bytes are needed; room for them has been reserved. Limits are held
/// against the announced lengths, before anything of that size is read. The body of the command shares the
/// buffer's memory.
///
/// # Errors
/// The bytes are no frame; nothing after them can be understood.
pub fn decode(buffer: &mut BytesMut, limits: FrameLimits) -> Result<Option<Command>, FrameError> {
    let Some(mut words) = buffer.get(..4) else {
        return Ok(None);
    };
    let announced = i64::from(words.get_i32());
    if announced < 4 {
        return Err(FrameError::Length { frame: announced, header: 0 });
    }
    let size = announced as usize + 4;
    if size > limits.frame {
        return Err(FrameError::TooLarge { size: size as u64, limit: limits.frame });
    }
    let Some(mut words) = buffer.get(4..8) else {
        buffer.reserve(size - buffer.len());
        return Ok(None);
    };
    let word = words.get_u32();
    let (kind, header_length) = ((word >> 24) as u8, (word & 0x00FF_FFFF) as usize);
    if header_length + 8 > size {
        return Err(FrameError::Length { frame: announced, header: header_length as i64 });
    }
    if header_length > limits.header {
        return Err(FrameError::HeaderTooLarge { size: header_length, limit: limits.header });
    }
    let serialize_type = match kind {
        0 => SerializeType::Json,
        1 => SerializeType::RocketMq,
        other => return Err(FrameError::SerializeType(other)),
    };
    if buffer.len() < size {
        buffer.reserve(size - buffer.len());
        return Ok(None);
    }
    let mut frame = buffer.split_to(size).freeze();
    frame.advance(8);
    let header = frame.split_to(header_length);
    let mut command = match serialize_type {
        SerializeType::Json => json_header::decode(&header)?,
        SerializeType::RocketMq => binary_header::decode(&header)?,
    };
    command.serialize_type = serialize_type;
    command.body = Body::from(frame);
    Ok(Some(command))
}

/// Writes the frame's words and header into `head`, and hands the slices of the body to `tail` in
/// order; the frame is `head` followed by them.
pub fn encode(command: &Command, head: &mut BytesMut, mut tail: impl FnMut(&mut BytesMut, &Bytes)) {
    let start = head.len();
    head.put_u64(0);
    let kind = match command.serialize_type {
        SerializeType::Json => {
            json_header::encode(command, head);
            0
        }
        SerializeType::RocketMq => {
            binary_header::encode(command, head);
            1
        }
    };
    let header_length = head.len() - start - 8;
    let length = 4 + header_length + command.body.len();
    head[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
    let word = (kind << 24) | (header_length as u32 & 0x00FF_FFFF);
    head[start + 4..start + 8].copy_from_slice(&word.to_be_bytes());
    match &command.body {
        Body::Empty => {}
        Body::One(bytes) => tail(head, bytes),
        Body::Parts(parts) => parts.iter().for_each(|bytes| tail(head, bytes)),
    }
}

/// The whole frame in one piece, body copied in: for tests and tools, off the message path.
pub fn to_bytes(command: &Command) -> Bytes {
    let mut frame = BytesMut::with_capacity(256 + command.body.len());
    encode(command, &mut frame, |frame, body| frame.extend_from_slice(body));
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::FLAG_RESPONSE;

    fn sample(serialize_type: SerializeType) -> Command {
        Command {
            code: 310,
            opaque: -7,
            flag: FLAG_RESPONSE,
            version: 407,
            remark: Some("a \"quoted\"\n remark é".into()),
            ext_fields: [("a", "group"), ("b", "topic\u{1}x\u{2}"), ("n", "")].into_iter().collect(),
            body: Body::from("body"),
            serialize_type,
            ..Command::default()
        }
    }

    #[test]
    fn both_encodings_give_back_what_went_in() {
        for kind in [SerializeType::Json, SerializeType::RocketMq] {
            let command = sample(kind);
            let mut buffer = BytesMut::from(&to_bytes(&command)[..]);
            let back = decode(&mut buffer, FrameLimits::default()).unwrap().unwrap();
            assert!(buffer.is_empty());
            assert_eq!(back.serialize_type, kind);
            assert_eq!((back.code, back.opaque, back.flag, back.version), (310, -7, FLAG_RESPONSE, 407));
            assert_eq!(back.remark, command.remark);
            assert_eq!(back.ext_fields.get("b"), command.ext_fields.get("b"));
            assert_eq!(back.body, command.body);
        }
    }

    #[test]
    fn a_frame_in_single_bytes_is_one_frame() {
        let whole = to_bytes(&sample(SerializeType::Json));
        let mut buffer = BytesMut::new();
        for byte in &whole[..whole.len() - 1] {
            buffer.put_u8(*byte);
            assert!(decode(&mut buffer, FrameLimits::default()).unwrap().is_none());
        }
        buffer.put_u8(whole[whole.len() - 1]);
        assert_eq!(decode(&mut buffer, FrameLimits::default()).unwrap().unwrap().code, 310);
    }

    #[test]
    fn lengths_are_refused_before_their_bytes_are_read() {
        let limits = FrameLimits { frame: 1024, header: 64 };
        let refused = |bytes: &[u8]| decode(&mut BytesMut::from(bytes), limits).unwrap_err();
        assert!(matches!(refused(&[0, 0, 4, 0]), FrameError::TooLarge { size: 1028, limit: 1024 }));
        assert!(matches!(refused(&[255, 255, 255, 255]), FrameError::Length { frame: -1, .. }));
        assert!(matches!(refused(&[0, 0, 0, 4, 0, 0, 0, 1]), FrameError::Length { frame: 4, header: 1 }));
        assert!(matches!(refused(&[0, 0, 1, 0, 0, 0, 0, 65]), FrameError::HeaderTooLarge { size: 65, limit: 64 }));
        assert!(matches!(refused(&[0, 0, 0, 4, 9, 0, 0, 0]), FrameError::SerializeType(9)));
    }
}
