//! RocketMQ's remoting protocol: what travels between clients, brokers and name servers.
//!
//! From the bytes up:
//!
//! * [`frame`]: the length-prefixed frame, and the two encodings of its header
//!   ([`json_header`], [`binary_header`]);
//! * [`command`]: one request or response, with its [`ext_fields`] and [`body`](mod@body);
//! * [`request_code`] and [`response_code`]: the numbers, in one table each;
//! * [`header`]: the typed form of `extFields`, one struct a request or response;
//! * [`bodies`]: the JSON bodies, and [`fastjson`], the dialect they are written in;
//! * [`peer`]: one connection, the same code whichever side opened it, with
//!   [`server`] and [`client`] on top, and [`tls`] below where it is asked for.
//!
//! This crate knows neither broker nor name server: it moves and types messages, and keeps the
//! promises of the wire (limits, pipelining, answers in kind), nothing else.

pub mod binary_header;
pub mod bodies;
pub mod body;
pub mod client;
pub mod command;
pub mod error;
pub mod ext_fields;
pub mod fastjson;
pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod header;
pub mod json_header;
pub mod peer;
pub mod properties_file;
pub mod rejections;
pub mod request_code;
pub mod response_code;
pub mod server;
pub mod support;
pub mod tls;

pub use body::Body;
pub use bytestring::ByteString;
pub use client::{Client, ClientConfig};
pub use command::{Command, Language, SerializeType};
pub use error::{FrameError, RemotingError};
pub use ext_fields::ExtFields;
pub use header::{Header, HeaderError};
pub use peer::{Answer, Peer, Service};
pub use rejections::Rejections;
pub use request_code::RequestCode;
pub use response_code::ResponseCode;
pub use server::{Server, ServerConfig};
pub use support::Support;

/// The version that our commands carry: `V4_9_7`, as an ordinal of RocketMQ's `MQVersion` enum.
///
/// Java clients refuse SQL92 subscriptions towards a broker below 233 (4.1.0), and 5.x clients
/// keep to the classic protocol towards a 4.9 broker.
pub const VERSION: i32 = 407;

/// The name of [`VERSION`], as `brokerVersionDesc` shows it.
pub const VERSION_NAME: &str = "V4_9_7";
