//! A second, independent reader of the commit log's units, which are also what a pull answers: what was stored is not checked by the
//! code that stored it. Layout: `MessageDecoder.decode` of 4.9, and the two-byte topic length of 5.x.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

const MAGIC_V1: u32 = 0xDAA3_20A7;
const MAGIC_V2: u32 = 0xDAA3_20AB;
const BORN_HOST_V6: i32 = 0x10;
const STORE_HOST_V6: i32 = 0x20;

/// One message as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    pub topic: String,
    pub queue_id: i32,
    pub queue_offset: i64,
    /// Offset in the commit log, in bytes.
    pub log_offset: u64,
    pub magic: u32,
    pub body_crc: u32,
    pub flag: i32,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_timestamp: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: Vec<u8>,
    /// In the order in which they are stored.
    pub properties: Vec<(String, String)>,
}

impl StoredMessage {
    /// The first property of that name.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// All units of `raw`, one behind the other.
pub fn decode_all(mut raw: &[u8]) -> Result<Vec<StoredMessage>> {
    let mut all = Vec::new();
    while !raw.is_empty() {
        let size = Fields(raw).u32().context("a torn length")? as usize;
        let (unit, rest) = raw.split_at_checked(size).with_context(|| format!("{size} of {} bytes", raw.len()))?;
        all.push(decode(unit).with_context(|| format!("unit {} of an answer", all.len()))?);
        raw = rest;
    }
    Ok(all)
}

/// One whole unit.
pub fn decode(unit: &[u8]) -> Result<StoredMessage> {
    read(&mut Fields(unit))?.context("the unit ends too early")
}

/// `None` where the bytes end too early.
fn read(fields: &mut Fields<'_>) -> Result<Option<StoredMessage>> {
    let Some((_, magic)) = fields.u32().zip(fields.u32()) else { return Ok(None) };
    ensure!(magic == MAGIC_V1 || magic == MAGIC_V2, "magic {magic:#010x}");
    let message = read_fields(fields, magic);
    if let Some((message, _)) = &message {
        ensure!(fields.0.is_empty(), "{} bytes behind the message", fields.0.len());
        ensure!(message.body_crc == crc32(&message.body), "the checksum of the body does not match");
    }
    let Some((mut message, text)) = message else { return Ok(None) };
    let text = String::from_utf8(text.to_vec()).context("properties are no text")?;
    for pair in text.split('\u{2}').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('\u{1}').with_context(|| format!("property {pair:?}"))?;
        message.properties.push((name.to_owned(), value.to_owned()));
    }
    Ok(Some(message))
}

fn read_fields<'a>(fields: &mut Fields<'a>, magic: u32) -> Option<(StoredMessage, &'a [u8])> {
    let body_crc = fields.u32()?;
    let queue_id = fields.i32()?;
    let flag = fields.i32()?;
    let queue_offset = fields.i64()?;
    let log_offset = fields.i64()? as u64;
    let sys_flag = fields.i32()?;
    let born_timestamp = fields.i64()?;
    let born_host = fields.host(sys_flag & BORN_HOST_V6 != 0)?;
    let store_timestamp = fields.i64()?;
    let store_host = fields.host(sys_flag & STORE_HOST_V6 != 0)?;
    let reconsume_times = fields.i32()?;
    let prepared_transaction_offset = fields.i64()?;
    let body_length = fields.u32()?;
    let body = fields.take(body_length as usize)?.to_vec();
    let topic_length = if magic == MAGIC_V1 { usize::from(fields.array::<1>()?[0]) } else { fields.u16()? };
    let topic = String::from_utf8(fields.take(topic_length)?.to_vec()).ok()?;
    let properties_length = fields.u16()?;
    let text = fields.take(properties_length)?;
    let message = StoredMessage {
        topic,
        queue_id,
        queue_offset,
        log_offset,
        magic,
        body_crc,
        flag,
        sys_flag,
        born_timestamp,
        born_host,
        store_timestamp,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
        body,
        properties: Vec::new(),
    };
    Some((message, text))
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<usize> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn host(&mut self, v6: bool) -> Option<SocketAddr> {
        let ip = if v6 {
            IpAddr::V6(Ipv6Addr::from(self.array::<16>()?))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.array::<4>()?))
        };
        Some(SocketAddr::new(ip, u16::try_from(self.u32()?).ok()?))
    }
}

/// CRC-32 (IEEE) without its sign bit, as `UtilAll.crc32`.
fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) & 0x7FFF_FFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(magic: u32, body: &[u8], topic: &str, properties: &str) -> Vec<u8> {
        let mut unit = vec![0; 4];
        unit.extend(magic.to_be_bytes());
        unit.extend(crc32(body).to_be_bytes());
        for word in [3_u32, 7] {
            unit.extend(word.to_be_bytes());
        }
        unit.extend(5_u64.to_be_bytes());
        unit.extend(4096_u64.to_be_bytes());
        unit.extend((BORN_HOST_V6 as u32).to_be_bytes());
        unit.extend(1_u64.to_be_bytes());
        unit.extend(Ipv6Addr::LOCALHOST.octets());
        unit.extend(9_u32.to_be_bytes());
        unit.extend(2_u64.to_be_bytes());
        unit.extend([127, 0, 0, 1]);
        unit.extend(10_911_u32.to_be_bytes());
        unit.extend([0; 12]);
        unit.extend((body.len() as u32).to_be_bytes());
        unit.extend(body);
        if magic == MAGIC_V1 {
            unit.push(topic.len() as u8);
        } else {
            unit.extend((topic.len() as u16).to_be_bytes());
        }
        unit.extend(topic.as_bytes());
        unit.extend((properties.len() as u16).to_be_bytes());
        unit.extend(properties.as_bytes());
        let size = unit.len() as u32;
        unit[..4].copy_from_slice(&size.to_be_bytes());
        unit
    }

    #[test]
    fn both_versions_are_read_and_damage_is_noticed() {
        let long = "T".repeat(200);
        let mut raw = unit(MAGIC_V1, b"body", "Topic", "A\u{1}1\u{2}B\u{1}2\u{2}");
        raw.extend(unit(MAGIC_V2, b"", &long, ""));
        let all = decode_all(&raw).expect("two messages");
        assert_eq!(
            (all[0].topic.as_str(), all[0].queue_id, all[0].queue_offset, all[0].log_offset),
            ("Topic", 3, 5, 4096)
        );
        assert_eq!((all[0].property("B"), all[0].property("C")), (Some("2"), None));
        assert_eq!((all[0].born_host.to_string(), all[0].store_host.port()), ("[::1]:9".to_owned(), 10_911));
        assert_eq!((&all[1].topic, all[1].body.len()), (&long, 0));
        assert!(decode_all(&raw[..raw.len() - 1]).is_err());
        let at = raw.windows(4).position(|window| window == b"body").expect("the body");
        raw[at] ^= 1;
        assert!(decode_all(&raw).is_err());
    }
}
