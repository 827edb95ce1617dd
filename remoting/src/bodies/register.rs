//! The body with which a broker registers.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::{Deserialize, Serialize};

use super::{DataVersion, TopicConfig, TopicConfigTable};
use crate::fastjson::{self, FastjsonError};

/// The version of the first release (5.0.0) whose compressed body ends with queue mappings.
const VERSION_5_0_0: i32 = 413;
/// A compressed body may unfold to this many bytes.
const UNCOMPRESSED_MAX: u64 = 256 * 1024 * 1024;

/// What a broker serves (`RegisterBrokerBody` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegisterBroker {
    /// Of a feature long gone; Java wants the list.
    pub filter_server_list: Vec<String>,
    /// Its topics.
    pub topic_config_serialize_wrapper: TopicConfigTable,
}

/// A registration's body does not parse.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A JSON text is wrong.
    #[error(transparent)]
    Json(#[from] FastjsonError),
    /// The zlib stream is broken or unfolds to too much.
    #[error("the compressed body cannot be read: {0}")]
    Compressed(#[from] std::io::Error),
    /// A length or a topic's line is wrong.
    #[error("the compressed body is malformed: {0}")]
    Malformed(&'static str),
}

impl RegisterBroker {
    /// Reads the body of a registration; `version` is that of the sender.
    ///
    /// # Errors
    /// The body does not parse.
    pub fn decode(body: &[u8], compressed: bool, version: i32) -> Result<Self, RegisterError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        if !compressed {
            return Ok(fastjson::from_slice(body)?);
        }
        let mut plain = Vec::new();
        flate2::read::ZlibDecoder::new(body).take(UNCOMPRESSED_MAX).read_to_end(&mut plain)?;
        let mut rest = plain.as_slice();
        let data_version: DataVersion = fastjson::from_slice(chunk(&mut rest)?)?;
        let mut topics = BTreeMap::new();
        for _ in 0..int(&mut rest)? {
            let topic = parse_topic(chunk(&mut rest)?)?;
            topics.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = fastjson::from_slice(chunk(&mut rest)?)?;
        if version >= VERSION_5_0_0 {
            // Queue mappings of static topics: read over, static topics are not served.
            for _ in 0..int(&mut rest)? {
                chunk(&mut rest)?;
            }
        }
        let table = TopicConfigTable { data_version, topic_config_table: topics };
        Ok(Self { filter_server_list, topic_config_serialize_wrapper: table })
    }
}

fn int(rest: &mut &[u8]) -> Result<i32, RegisterError> {
    let (word, tail) = rest.split_first_chunk().ok_or(RegisterError::Malformed("it ends in a length"))?;
    *rest = tail;
    Ok(i32::from_be_bytes(*word))
}

fn chunk<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RegisterError> {
    let length = usize::try_from(int(rest)?).map_err(|_| RegisterError::Malformed("a length is negative"))?;
    let (chunk, tail) = rest.split_at_checked(length).ok_or(RegisterError::Malformed("a text is cut short"))?;
    *rest = tail;
    Ok(chunk)
}

/// `name readQueueNums writeQueueNums perm FILTERTYPE`, in 5.x with attributes behind.
fn parse_topic(line: &[u8]) -> Result<TopicConfig, RegisterError> {
    let malformed = RegisterError::Malformed("a topic is not `name read write perm filterType`");
    let Ok(line) = std::str::from_utf8(line) else { return Err(malformed) };
    let mut words = line.split(' ');
    let (Some(name), Some(read), Some(write), Some(perm)) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed);
    };
    match (read.parse(), write.parse(), perm.parse()) {
        (Ok(read_queue_nums), Ok(write_queue_nums), Ok(perm)) => Ok(TopicConfig {
            topic_name: name.into(),
            read_queue_nums,
            write_queue_nums,
            perm,
            topic_filter_type: words.next().unwrap_or("SINGLE_TAG").into(),
            ..TopicConfig::default()
        }),
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn compressed(parts: &[&[u8]]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        for part in parts {
            encoder.write_all(part).unwrap();
        }
        encoder.finish().unwrap()
    }

    #[test]
    fn a_compressed_registration_is_read() {
        let version = br#"{"counter":3,"timestamp":9}"#;
        let body = compressed(&[
            &(version.len() as i32).to_be_bytes(),
            version,
            &1i32.to_be_bytes(),
            &19i32.to_be_bytes(),
            b"TopicA 8 4 6 SINGLE",
            &2i32.to_be_bytes(),
            b"[]",
        ]);
        let read = RegisterBroker::decode(&body, true, 407).unwrap();
        let table = read.topic_config_serialize_wrapper;
        assert_eq!(table.data_version.counter, 3);
        assert_eq!(table.topic_config_table["TopicA"].write_queue_nums, 4);
        assert!(RegisterBroker::decode(&body, true, 413).is_err(), "5.x has one more section");
        for cut in 0..body.len() {
            let _ = RegisterBroker::decode(&body[..cut], true, 407);
        }
    }

    #[test]
    fn nulls_are_taken_as_absent() {
        let body =
            br#"{"filterServerList":null,"topicConfigSerializeWrapper":{"dataVersion":null,"topicConfigTable":{}}}"#;
        assert_eq!(RegisterBroker::decode(body, false, 407).unwrap(), RegisterBroker::default());
    }
}
