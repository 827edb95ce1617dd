//! One request or response, with its header fields and body.

use bytestring::ByteString;

use crate::body::Body;
use crate::ext_fields::ExtFields;
use crate::header::Header;
use crate::request_code::RequestCode;
use crate::response_code::ResponseCode;

/// How a header is written; the top byte of the header-length word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SerializeType {
    /// 0: a JSON object.
    #[default]
    Json,
    /// 1: RocketMQ's binary form.
    RocketMq,
}

/// The sender's language as its number on the wire; unknown numbers and names are kept as `OTHER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Language(pub u8);

impl Language {
    /// 0, what a command carries that names no language.
    pub const JAVA: Self = Self(0);
    /// 1; the C++ client wants another shape of the reset-offset body.
    pub const CPP: Self = Self(1);
    /// 7
    pub const OTHER: Self = Self(7);

    const NAMES: [&'static str; 14] = [
        "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST",
        "NODE_JS",
    ];

    /// RocketMQ's name for it (`LanguageCode`).
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or("OTHER")
    }

    /// The language of that name.
    pub fn from_name(name: &str) -> Self {
        Self::NAMES.iter().position(|known| *known == name).map_or(Self::OTHER, |at| Self(at as u8))
    }
}

/// Room for the header of most answers.
const HEADER_FIELDS: usize = 8;
/// The same, in bytes.
const HEADER_BYTES: usize = 128;
/// Bit 0 of `flag`: a response.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit 1 of `flag`: a request that must not be answered, not even by an error.
pub const FLAG_ONEWAY: i32 = 2;

/// A request or a response (`RemotingCommand` in Java).
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// Request code or response code, by [`is_response`](Self::is_response).
    pub code: i32,
    /// The sender's language.
    pub language: Language,
    /// The sender's version, an ordinal of `MQVersion`.
    pub version: i32,
    /// Joins a response to its request; each side of a connection counts its own.
    pub opaque: i32,
    /// [`FLAG_RESPONSE`] and [`FLAG_ONEWAY`].
    pub flag: i32,
    /// Text for people; some tools look at it.
    pub remark: Option<ByteString>,
    /// Typed by [`Header`].
    pub ext_fields: ExtFields,
    /// The payload.
    pub body: Body,
    /// How the header came, or is to be written.
    pub serialize_type: SerializeType,
}

impl Command {
    /// A request without header fields; its opaque is set by the connection that sends it.
    pub fn request(code: RequestCode) -> Self {
        Self { code: code.0, version: crate::VERSION, ..Self::default() }
    }

    /// A response without header fields; opaque and encoding are set by the connection that
    /// carries it, from the request.
    pub fn response(code: ResponseCode) -> Self {
        Self { code: code.0, version: crate::VERSION, flag: FLAG_RESPONSE, ..Self::default() }
    }

    /// A successful response without header fields.
    pub fn ok() -> Self {
        Self::response(ResponseCode::SUCCESS)
    }

    /// A response that refuses, with the reason for people to read.
    pub fn refusal(code: ResponseCode, remark: impl Into<ByteString>) -> Self {
        Self::response(code).with_remark(remark)
    }

    /// The same command with these header fields.
    #[must_use]
    pub fn with_header(mut self, header: &impl Header) -> Self {
        self.ext_fields.reserve(HEADER_FIELDS, HEADER_BYTES);
        header.encode(&mut self.ext_fields);
        self
    }

    /// The same command with that body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The same command with that remark.
    #[must_use]
    pub fn with_remark(mut self, remark: impl Into<ByteString>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// Whether this answers a request.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// The code as that of a request.
    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    /// The code as that of a response.
    pub fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }

    /// The remark, or nothing.
    pub fn remark(&self) -> &str {
        self.remark.as_deref().unwrap_or("")
    }
}
