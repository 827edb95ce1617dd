//! What the load needs to know of an answer: its code, its number and where its body lies.
//!
//! Reads the words and two or three header fields of a frame in place. It decodes nothing else, so
//! that the generator costs little beside the broker; whether the whole header is right is the
//! matter of the protocol's own tests.

use memchr::memmem;

/// One frame that came from the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The response code.
    pub code: i32,
    /// Joins the answer to its request.
    pub opaque: i32,
    /// False for what the broker asks of its own accord.
    pub is_response: bool,
    /// The payload.
    pub body: &'a [u8],
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The lengths contradict each other.
    Lengths,
    /// The header is not JSON, though the request's was.
    NotJson,
    /// A field that each answer carries is not there.
    Field(&'static str),
}

impl std::error::Error for Malformed {}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lengths => f.write_str("an answer whose lengths contradict each other"),
            Self::NotJson => f.write_str("an answer without a JSON header"),
            Self::Field(name) => write!(f, "an answer without {name}"),
        }
    }
}

/// The whole length of the frame at the front of `bytes`, its length word included; `None` while
/// that word is not there yet.
pub fn frame_length(bytes: &[u8]) -> Option<usize> {
    let word = bytes.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word) as usize + 4)
}

/// Finds the fields of answers; made once, as the searchers have tables.
#[derive(Debug)]
pub struct Reader {
    code: memmem::Finder<'static>,
    flag: memmem::Finder<'static>,
    opaque: memmem::Finder<'static>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            code: memmem::Finder::new("\"code\":"),
            flag: memmem::Finder::new("\"flag\":"),
            opaque: memmem::Finder::new("\"opaque\":"),
        }
    }
}

impl Reader {
    /// Reads one whole frame, length word included.
    ///
    /// A quote within a JSON text is always written with a backslash, so that the quoted names can
    /// be found by their bytes: a remark cannot look like them.
    ///
    /// # Errors
    /// The bytes are no answer of a broker.
    pub fn read<'a>(&self, frame: &'a [u8]) -> Result<Answer<'a>, Malformed> {
        let word = frame.get(4..8).and_then(|word| word.first_chunk::<4>()).ok_or(Malformed::Lengths)?;
        if word[0] != 0 {
            return Err(Malformed::NotJson);
        }
        let header_length = u32::from_be_bytes(*word) as usize;
        let (header, body) = frame[8..].split_at_checked(header_length).ok_or(Malformed::Lengths)?;
        Ok(Answer {
            code: number(&self.code, header).ok_or(Malformed::Field("code"))?,
            opaque: number(&self.opaque, header).ok_or(Malformed::Field("opaque"))?,
            is_response: number(&self.flag, header).ok_or(Malformed::Field("flag"))? & 1 == 1,
            body,
        })
    }
}

fn number(name: &memmem::Finder<'_>, header: &[u8]) -> Option<i32> {
    let mut at = name.find(header)? + name.needle().len();
    let negative = header.get(at) == Some(&b'-');
    at += usize::from(negative);
    let digits = header[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut value = None;
    for digit in digits {
        value = Some(value.unwrap_or(0_i32).wrapping_mul(10).wrapping_add(i32::from(digit - b'0')));
    }
    value.map(|value: i32| if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocketmq_remoting::command::Command;
    use rocketmq_remoting::frame::to_bytes;
    use rocketmq_remoting::{ResponseCode, SerializeType};

    #[test]
    fn an_answer_is_read_as_the_wire_crate_wrote_it() {
        let mut command = Command::refusal(ResponseCode::SYSTEM_BUSY, "a \"code\":7, \"opaque\":8, \"flag\":0 in text");
        command.opaque = -1_234_567;
        command.ext_fields.push("queueOffset", "5");
        let frame = to_bytes(&command.with_body("body"));
        assert_eq!(frame_length(&frame), Some(frame.len()));
        let answer = Reader::default().read(&frame).unwrap();
        assert_eq!(answer, Answer { code: 2, opaque: -1_234_567, is_response: true, body: b"body" });
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let reader = Reader::default();
        let mut command = Command::ok();
        command.serialize_type = SerializeType::RocketMq;
        assert_eq!(reader.read(&to_bytes(&command)), Err(Malformed::NotJson));
        assert_eq!(reader.read(&[0, 0, 0, 4, 0, 0, 0, 9, 0]), Err(Malformed::Lengths));
        assert_eq!(reader.read(&[0, 0, 0, 6, 0, 0, 0, 2, b'{', b'}']), Err(Malformed::Field("code")));
        assert_eq!(frame_length(&[0, 0, 0]), None);
    }
}
