//! The response codes, in one table (`ResponseCode` and `RemotingSysResponseCode` in Java).

use std::fmt;

/// What a response says; unknown numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseCode(pub i32);

macro_rules! response_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)+) => {
        impl ResponseCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)+

            /// RocketMQ's name for the code, where it is known.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

response_codes! {
    /// Done.
    SUCCESS = 0;
    /// Failed for a reason that only the remark tells.
    SYSTEM_ERROR = 1;
    /// Refused for now: a limit was met, which the remark names.
    SYSTEM_BUSY = 2;
    /// Nobody here answers that request code.
    REQUEST_CODE_NOT_SUPPORTED = 3;
    /// A transaction could not be ended.
    TRANSACTION_FAILED = 4;
    /// Stored, not yet known to be on disk.
    FLUSH_DISK_TIMEOUT = 10;
    /// Stored, but no slave is there to copy it.
    SLAVE_NOT_AVAILABLE = 11;
    /// Stored, but no slave has confirmed it in time.
    FLUSH_SLAVE_TIMEOUT = 12;
    /// The message is too large or malformed.
    MESSAGE_ILLEGAL = 13;
    /// The store does not take messages now.
    SERVICE_NOT_AVAILABLE = 14;
    /// The peer's version is too low.
    VERSION_NOT_SUPPORTED = 15;
    /// Broker, topic or group does not permit it.
    NO_PERMISSION = 16;
    /// Unknown topic.
    TOPIC_NOT_EXIST = 17;
    /// The topic is there already.
    TOPIC_EXIST_ALREADY = 18;
    /// No message at that offset yet.
    PULL_NOT_FOUND = 19;
    /// Nothing matched; go on at the next offset.
    PULL_RETRY_IMMEDIATELY = 20;
    /// The offset lies outside the queue.
    PULL_OFFSET_MOVED = 21;
    /// Nothing stored under that name.
    QUERY_NOT_FOUND = 22;
    /// The subscription expression does not parse.
    SUBSCRIPTION_PARSE_FAILED = 23;
    /// The group does not subscribe to that.
    SUBSCRIPTION_NOT_EXIST = 24;
    /// A newer subscription is on its way.
    SUBSCRIPTION_NOT_LATEST = 25;
    /// Unknown consumer group.
    SUBSCRIPTION_GROUP_NOT_EXIST = 26;
    /// No filter data for the consumer.
    FILTER_DATA_NOT_EXIST = 27;
    /// The filter data is older than the request.
    FILTER_DATA_NOT_LATEST = 28;
    /// 5.x: a parameter is wrong.
    INVALID_PARAMETER = 29;
    /// No such consumer is connected.
    CONSUMER_NOT_ONLINE = 206;
    /// The consumer did not finish in time.
    CONSUME_MSG_TIMEOUT = 207;
    /// No such message.
    NO_MESSAGE = 208;
    /// 4.9.5 and later: slow down.
    FLOW_CONTROL = 215;
    /// 5.x: the request makes no sense here.
    ILLEGAL_OPERATION = 604;
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name}({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}
