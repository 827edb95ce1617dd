//! The unit of the commit log: layout, encoding, decoding.
//!
//! Owns every byte offset of a stored message (PROTOCOL: `MessageDecoder`, `CommitLog.MessageExtEncoder`). May not:
//! touch files or assign offsets; the log patches those into an encoded unit under its lock.
//!
//! ```text
//! totalSize 4 | magic 4 | bodyCRC 4 | queueId 4 | flag 4 | queueOffset 8 | physicalOffset 8 | sysFlag 4 |
//! bornTimestamp 8 | bornHost 8/20 | storeTimestamp 8 | storeHost 8/20 | reconsumeTimes 4 |
//! preparedTransactionOffset 8 | bodyLength 4 + body | topicLength 1/2 + topic | propertiesLength 2 + properties
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::StoreError;

/// Magic of version 1: topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of version 2 (5.x): topic length is two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of the blank record that fills the end of a log file.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// Bytes of the blank record's head: its size and its magic.
pub const BLANK_MIN: usize = 8;
/// Smallest unit: version 1, IPv4 hosts, no body, topic or properties.
pub const UNIT_MIN: usize = 91;
/// Longest properties text: the length is a signed 16-bit field.
pub const PROPERTIES_MAX: usize = i16::MAX as usize;
/// Longest topic of version 1.
pub const TOPIC_MAX_V1: usize = 127;

/// The bits of `sysFlag` (`MessageSysFlag`).
pub mod sys_flag {
    /// The client compressed the body.
    pub const COMPRESSED: i32 = 0x1;
    /// The topic is of filter type `MULTI_TAG`.
    pub const MULTI_TAGS: i32 = 0x2;
    /// Half message.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// Committed transaction.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// Rolled back transaction; also the mask of the transaction bits.
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    /// `bornHost` is IPv6.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// `storeHost` is IPv6.
    pub const STORE_HOST_V6: i32 = 0x20;
    /// 5.x: must be unwrapped for old clients.
    pub const NEED_UNWRAP: i32 = 0x40;
    /// 5.x: inner batch.
    pub const INNER_BATCH: i32 = 0x80;
    /// Compression type, bits 8-10.
    pub const COMPRESSION_TYPE_MASK: i32 = 0x700;

    /// The transaction bits alone.
    pub const fn transaction(flag: i32) -> i32 {
        flag & TRANSACTION_ROLLBACK
    }

    /// Whether such a message gets a consume queue entry: everything but prepared and rolled back ones.
    pub const fn enters_queue(flag: i32) -> bool {
        matches!(transaction(flag), 0 | TRANSACTION_COMMIT)
    }

    /// Whether such a message is indexed: everything but rolled back ones (`CommitLogDispatcherBuildIndex`).
    pub const fn is_indexed(flag: i32) -> bool {
        transaction(flag) != TRANSACTION_ROLLBACK
    }
}

pub(crate) const AT_MAGIC: usize = 4;
pub(crate) const AT_QUEUE_OFFSET: usize = 20;
pub(crate) const AT_PHYSICAL_OFFSET: usize = 28;
pub(crate) const AT_SYS_FLAG: usize = 36;
pub(crate) const AT_BORN_HOST: usize = 48;

/// Where `storeTimestamp` lies in a unit with this `sysFlag`.
pub(crate) const fn store_timestamp_at(sys_flag: i32) -> usize {
    AT_BORN_HOST + if sys_flag & sys_flag::BORN_HOST_V6 == 0 { 8 } else { 20 }
}

/// Whether a topic may name a directory: the queues of a topic lie in one. RocketMQ's own rule for topics is
/// stricter and the broker's business; this one keeps paths inside the store.
pub(crate) fn is_directory_name(topic: &str) -> bool {
    topic != "." && topic != ".." && topic.len() <= 255 && !topic.bytes().any(|b| b == b'/' || b == 0)
}

/// CRC-32 (IEEE) of a body, the sign bit cleared, as `UtilAll.crc32` has it.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// What the broker hands over; borrowed, encoded once.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    /// Topic whose queue gets the message.
    pub topic: &'a str,
    /// Queue of the topic, not negative.
    pub queue_id: i32,
    /// User flag, kept as it is.
    pub flag: i32,
    /// See [`sys_flag`]; the two host bits are set by the store.
    pub sys_flag: i32,
    /// Client's clock at creation, ms.
    pub born_timestamp: i64,
    /// Client's address.
    pub born_host: SocketAddr,
    /// The broker's address: it becomes part of the offset message id.
    pub store_host: SocketAddr,
    /// How often the message was sent back.
    pub reconsume_times: i32,
    /// Log offset of the half message, for commit and rollback; else 0.
    pub prepared_transaction_offset: i64,
    /// The body as the client sent it (compressed or not).
    pub body: &'a [u8],
    /// Properties text, see [`crate::properties()`].
    pub properties: &'a [u8],
}

#[cfg(test)]
impl NewMessage<'static> {
    /// An empty message of topic `T`, queue 0, for tests to change.
    pub(crate) fn sample() -> Self {
        let host = SocketAddr::from(([127, 0, 0, 1], 10911));
        Self {
            topic: "T",
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"",
            properties: b"",
        }
    }
}

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Log offset of the (first) unit.
    pub offset: u64,
    /// Log offset behind the (last) unit: what [`crate::MessageStore::flushed`] and replication wait for.
    pub end: u64,
    /// Queue offset of the (first) message; 0 for prepared and rollback types.
    pub queue_offset: i64,
    /// Time of storing, ms; the same for a whole batch.
    pub store_timestamp: i64,
    /// Messages stored.
    pub count: u32,
}

/// Bytes a message takes in the log.
fn unit_size(m: &NewMessage<'_>) -> usize {
    let host = |h: &SocketAddr| if h.is_ipv6() { 12 } else { 0 };
    UNIT_MIN
        + usize::from(m.topic.len() > TOPIC_MAX_V1)
        + host(&m.born_host)
        + host(&m.store_host)
        + m.body.len()
        + m.topic.len()
        + m.properties.len()
}

/// Appends the unit of `m` to `out`, with zero for what the log assigns; returns its size.
pub(crate) fn encode(m: &NewMessage<'_>, accept_v2: bool, out: &mut Vec<u8>) -> Result<usize, StoreError> {
    let topic_max = if accept_v2 { 255 } else { TOPIC_MAX_V1 };
    if m.topic.is_empty() || m.topic.len() > topic_max {
        return Err(StoreError::TopicLength { len: m.topic.len(), max: topic_max });
    }
    if !is_directory_name(m.topic) {
        return Err(StoreError::TopicName { topic: m.topic.to_owned() });
    }
    if m.properties.len() > PROPERTIES_MAX {
        return Err(StoreError::PropertiesTooLong { len: m.properties.len() });
    }
    if m.queue_id < 0 {
        return Err(StoreError::QueueId { queue_id: m.queue_id });
    }
    let size = unit_size(m);
    if size > i32::MAX as usize {
        return Err(StoreError::MessageTooLarge { size, max: i32::MAX as usize });
    }
    let v2 = m.topic.len() > TOPIC_MAX_V1;
    out.reserve(size);
    let start = out.len();
    out.extend_from_slice(&(size as u32).to_be_bytes());
    out.extend_from_slice(&if v2 { MAGIC_V2 } else { MAGIC_V1 }.to_be_bytes());
    out.extend_from_slice(&body_crc(m.body).to_be_bytes());
    out.extend_from_slice(&m.queue_id.to_be_bytes());
    out.extend_from_slice(&m.flag.to_be_bytes());
    out.extend_from_slice(&[0; 16]); // queueOffset, physicalOffset
    out.extend_from_slice(&stored_sys_flag(m).to_be_bytes());
    out.extend_from_slice(&m.born_timestamp.to_be_bytes());
    encode_host(&m.born_host, out);
    out.extend_from_slice(&[0; 8]); // storeTimestamp
    encode_host(&m.store_host, out);
    out.extend_from_slice(&m.reconsume_times.to_be_bytes());
    out.extend_from_slice(&m.prepared_transaction_offset.to_be_bytes());
    out.extend_from_slice(&(m.body.len() as u32).to_be_bytes());
    out.extend_from_slice(m.body);
    if v2 {
        out.extend_from_slice(&(m.topic.len() as u16).to_be_bytes());
    } else {
        out.push(m.topic.len() as u8);
    }
    out.extend_from_slice(m.topic.as_bytes());
    out.extend_from_slice(&(m.properties.len() as u16).to_be_bytes());
    out.extend_from_slice(m.properties);
    debug_assert_eq!(out.len() - start, size);
    Ok(size)
}

/// `sysFlag` as it is stored: the host bits say what the hosts are.
fn stored_sys_flag(m: &NewMessage<'_>) -> i32 {
    let bit = |host: &SocketAddr, bit| if host.is_ipv6() { bit } else { 0 };
    (m.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6))
        | bit(&m.born_host, sys_flag::BORN_HOST_V6)
        | bit(&m.store_host, sys_flag::STORE_HOST_V6)
}

/// The head of the blank record of `size` bytes.
pub(crate) fn blank(size: usize) -> Vec<u8> {
    [(size as u32).to_be_bytes(), MAGIC_BLANK.to_be_bytes()].concat()
}

/// Fewest bytes that [`rolled_back`] can replace.
pub(crate) const ROLLED_BACK_MIN: usize = UNIT_MIN + 1;

/// A message that takes the place of `damaged` bytes at log offset `physical_offset`: rolled back, so that it enters
/// neither queue nor index. As much as fits of what it replaces is its body.
pub(crate) fn rolled_back(damaged: &[u8], physical_offset: u64, timestamp: i64) -> Result<Vec<u8>, StoreError> {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let m = NewMessage {
        topic: "-",
        queue_id: 0,
        flag: 0,
        sys_flag: sys_flag::TRANSACTION_ROLLBACK,
        born_timestamp: timestamp,
        born_host: nowhere,
        store_host: nowhere,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: damaged.get(ROLLED_BACK_MIN..).unwrap_or_default(),
        properties: b"",
    };
    let mut unit = Vec::with_capacity(damaged.len());
    encode(&m, false, &mut unit)?;
    // No queue offset: an entry that points to the damage must not take this for its message.
    patch(&mut unit, -1, physical_offset, timestamp);
    Ok(unit)
}

fn encode_host(host: &SocketAddr, out: &mut Vec<u8>) {
    match host.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&u32::from(host.port()).to_be_bytes());
}

/// Puts what the log assigns into an encoded unit (or the head of one).
pub(crate) fn patch(unit: &mut [u8], queue_offset: i64, physical_offset: u64, store_timestamp: i64) {
    let sys_flag = read_i32(unit, AT_SYS_FLAG);
    let at = store_timestamp_at(sys_flag);
    unit[AT_QUEUE_OFFSET..][..8].copy_from_slice(&queue_offset.to_be_bytes());
    unit[AT_PHYSICAL_OFFSET..][..8].copy_from_slice(&physical_offset.to_be_bytes());
    unit[at..][..8].copy_from_slice(&store_timestamp.to_be_bytes());
}

/// Big-endian reads at a position the caller has checked to be inside.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(raw)
}

pub(crate) fn read_i32(bytes: &[u8], at: usize) -> i32 {
    read_u32(bytes, at) as i32
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(raw)
}

pub(crate) fn read_i64(bytes: &[u8], at: usize) -> i64 {
    read_u64(bytes, at) as i64
}

/// What lies at a position of the log, judged by its first eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// A message of this many bytes, its body not looked at.
    Message(usize),
    /// The blank record of this many bytes that ends a file.
    Blank(usize),
    /// Fewer than eight bytes are there.
    Short,
    /// Neither.
    Bad,
}

pub(crate) fn head(bytes: &[u8]) -> Head {
    if bytes.len() < BLANK_MIN {
        return Head::Short;
    }
    let size = read_u32(bytes, 0) as usize;
    match read_u32(bytes, AT_MAGIC) {
        MAGIC_V1 | MAGIC_V2 if (UNIT_MIN..=i32::MAX as usize).contains(&size) => Head::Message(size),
        MAGIC_BLANK if size >= BLANK_MIN => Head::Blank(size),
        _ => Head::Bad,
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the unit.
    #[error("the bytes end inside the message")]
    Truncated,
    /// Neither version's magic.
    #[error("magic {0:#010x} is no message's")]
    Magic(u32),
    /// The fields do not add up to the unit's size.
    #[error("the lengths inside do not add up to the size {0}")]
    Size(u32),
    /// The topic is empty or no UTF-8.
    #[error("the topic is empty or no UTF-8")]
    Topic,
}

/// One stored message, borrowed from the bytes it was decoded from.
#[derive(Debug, Clone, Copy)]
pub struct MessageView<'a> {
    /// Bytes of the whole unit.
    pub total_size: u32,
    /// [`MAGIC_V1`] or [`MAGIC_V2`].
    pub magic: u32,
    /// As stored; see [`MessageView::crc_matches`].
    pub body_crc: u32,
    /// Queue of the topic.
    pub queue_id: i32,
    /// User flag.
    pub flag: i32,
    /// Index in the consume queue.
    pub queue_offset: i64,
    /// Offset in the commit log.
    pub physical_offset: u64,
    /// See [`sys_flag`].
    pub sys_flag: i32,
    /// Client's clock, ms.
    pub born_timestamp: i64,
    /// Client's address.
    pub born_host: SocketAddr,
    /// Broker's clock, ms.
    pub store_timestamp: i64,
    /// Broker's address.
    pub store_host: SocketAddr,
    /// How often the message was sent back.
    pub reconsume_times: i32,
    /// Log offset of the half message, or 0.
    pub prepared_transaction_offset: i64,
    /// Body as stored.
    pub body: &'a [u8],
    /// Topic.
    pub topic: &'a str,
    /// Properties text, see [`crate::properties()`].
    pub properties: &'a [u8],
}

impl MessageView<'_> {
    /// Whether the body is what was stored.
    pub fn crc_matches(&self) -> bool {
        body_crc(self.body) == self.body_crc
    }
}

/// Takes fields off the front; every step checks the length.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
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
        let ip: IpAddr =
            if v6 { Ipv6Addr::from(self.array::<16>()?).into() } else { Ipv4Addr::from(self.array::<4>()?).into() };
        Some(SocketAddr::new(ip, self.u32()? as u16))
    }
}

/// Decodes the message at the start of `bytes`; what follows it is not looked at. The CRC is not checked here.
pub fn decode_message(bytes: &[u8]) -> Result<MessageView<'_>, DecodeError> {
    let mut f = Fields(bytes);
    let total_size = f.u32().ok_or(DecodeError::Truncated)?;
    let magic = f.u32().ok_or(DecodeError::Truncated)?;
    if magic != MAGIC_V1 && magic != MAGIC_V2 {
        return Err(DecodeError::Magic(magic));
    }
    if (total_size as usize) < UNIT_MIN || total_size > i32::MAX as u32 {
        return Err(DecodeError::Size(total_size));
    }
    let unit = bytes.get(8..total_size as usize).ok_or(DecodeError::Truncated)?;
    let mut f = Fields(unit);
    let view = decode_fields(&mut f, total_size, magic).ok_or(DecodeError::Size(total_size))??;
    if f.0.is_empty() { Ok(view) } else { Err(DecodeError::Size(total_size)) }
}

fn decode_fields<'a>(f: &mut Fields<'a>, total_size: u32, magic: u32) -> Option<Result<MessageView<'a>, DecodeError>> {
    let body_crc = f.u32()?;
    let queue_id = f.i32()?;
    let flag = f.i32()?;
    let queue_offset = f.i64()?;
    let physical_offset = f.i64()? as u64;
    let sys_flag = f.i32()?;
    let born_timestamp = f.i64()?;
    let born_host = f.host(sys_flag & sys_flag::BORN_HOST_V6 != 0)?;
    let store_timestamp = f.i64()?;
    let store_host = f.host(sys_flag & sys_flag::STORE_HOST_V6 != 0)?;
    let reconsume_times = f.i32()?;
    let prepared_transaction_offset = f.i64()?;
    let body_len = f.u32()? as usize;
    let body = f.bytes(body_len)?;
    let topic_len = if magic == MAGIC_V2 { usize::from(f.u16()?) } else { usize::from(f.u8()?) };
    let topic = match std::str::from_utf8(f.bytes(topic_len)?) {
        Ok(topic) if !topic.is_empty() => topic,
        _ => return Some(Err(DecodeError::Topic)),
    };
    let properties_len = usize::from(f.u16()?);
    let properties = f.bytes(properties_len)?;
    Some(Ok(MessageView {
        total_size,
        magic,
        body_crc,
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag,
        born_timestamp,
        born_host,
        store_timestamp,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
        body,
        topic,
        properties,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>(topic: &'a str, born: &str, store: &str) -> NewMessage<'a> {
        NewMessage {
            topic,
            queue_id: 3,
            flag: 7,
            sys_flag: 0,
            born_timestamp: 0x0102_0304_0506_0708,
            born_host: born.parse().unwrap(),
            store_host: store.parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 9,
            body: b"123456789",
            properties: b"A\x01b\x02",
        }
    }

    #[test]
    fn version_1_lies_where_rocketmq_has_it() {
        let mut out = Vec::new();
        let m = sample("T", "10.0.0.1:1000", "127.0.0.1:10911");
        let size = encode(&m, true, &mut out).unwrap();
        patch(&mut out, 0x11, 0x22, 0x33);
        assert_eq!((size, out.len()), (91 + 9 + 1 + 4, size));
        assert_eq!(out[..4], (size as u32).to_be_bytes());
        assert_eq!(out[4..8], [0xDA, 0xA3, 0x20, 0xA7]);
        // The CRC-32 of "123456789" is CBF43926; the stored form has no sign bit.
        assert_eq!(out[8..12], [0x4B, 0xF4, 0x39, 0x26]);
        assert_eq!(out[12..16], [0, 0, 0, 3]);
        assert_eq!(out[16..20], [0, 0, 0, 7]);
        assert_eq!(out[20..28], 0x11_u64.to_be_bytes());
        assert_eq!(out[28..36], 0x22_u64.to_be_bytes());
        assert_eq!(out[36..40], [0; 4]);
        assert_eq!(out[40..48], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(out[48..56], [10, 0, 0, 1, 0, 0, 0x03, 0xE8]);
        assert_eq!(out[56..64], 0x33_u64.to_be_bytes());
        assert_eq!(out[64..72], [127, 0, 0, 1, 0, 0, 0x2A, 0x9F]);
        assert_eq!(out[72..76], [0, 0, 0, 2]);
        assert_eq!(out[76..84], 9_u64.to_be_bytes());
        assert_eq!(out[84..88], [0, 0, 0, 9]);
        assert_eq!(&out[88..97], b"123456789");
        assert_eq!(&out[97..99], b"\x01T");
        assert_eq!(&out[99..], b"\0\x04A\x01b\x02");
    }

    #[test]
    fn ipv6_hosts_move_the_rest_and_set_their_bits() {
        for (born, store, flags, extra) in [
            ("[::1]:5", "1.2.3.4:6", 0x10, 12),
            ("1.2.3.4:5", "[::1]:6", 0x20, 12),
            ("[::1]:5", "[fe80::2]:6", 0x30, 24),
        ] {
            let mut out = Vec::new();
            let m = sample("T", born, store);
            assert_eq!(encode(&m, true, &mut out).unwrap(), 105 + extra);
            patch(&mut out, 1, 2, 3);
            let v = decode_message(&out).unwrap();
            assert_eq!(v.sys_flag, flags);
            assert_eq!((v.born_host, v.store_host), (m.born_host, m.store_host));
            assert_eq!((v.queue_offset, v.physical_offset, v.store_timestamp), (1, 2, 3));
        }
    }

    #[test]
    fn a_long_topic_takes_version_2_or_is_refused() {
        let topic = "t".repeat(128);
        let m = sample(&topic, "1.1.1.1:1", "1.1.1.1:1");
        let mut out = Vec::new();
        encode(&m, true, &mut out).unwrap();
        assert_eq!(out[4..8], [0xDA, 0xA3, 0x20, 0xAB]);
        let v = decode_message(&out).unwrap();
        assert_eq!((v.topic, v.properties), (topic.as_str(), m.properties));
        assert!(matches!(encode(&m, false, &mut out), Err(StoreError::TopicLength { len: 128, max: 127 })));
    }

    #[test]
    fn limits_are_errors() {
        let long = vec![b'x'; 32768];
        let ok = sample("T", "1.1.1.1:1", "1.1.1.1:1");
        let mut out = Vec::new();
        let m = NewMessage { properties: &long, ..ok };
        assert!(matches!(encode(&m, true, &mut out), Err(StoreError::PropertiesTooLong { .. })));
        let m = NewMessage { topic: "", ..ok };
        assert!(matches!(encode(&m, true, &mut out), Err(StoreError::TopicLength { .. })));
        let m = NewMessage { queue_id: -1, ..ok };
        assert!(matches!(encode(&m, true, &mut out), Err(StoreError::QueueId { .. })));
        assert!(out.is_empty());
        let m = NewMessage { properties: &long[..32767], ..ok };
        encode(&m, true, &mut out).unwrap();
        assert_eq!(decode_message(&out).unwrap().properties.len(), 32767);
    }

    #[test]
    fn no_byte_sequence_panics_and_no_prefix_decodes() {
        let mut out = Vec::new();
        encode(&sample("Topic", "1.1.1.1:1", "[::1]:1"), true, &mut out).unwrap();
        for cut in 0..out.len() {
            assert!(decode_message(&out[..cut]).is_err(), "prefix of {cut}");
        }
        for at in 0..out.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut torn = out.clone();
                torn[at] = value;
                let _ = decode_message(&torn);
                let _ = head(&torn);
            }
        }
        let mut flipped = out.clone();
        flipped[88 + 12] ^= 1;
        assert!(!decode_message(&flipped).unwrap().crc_matches());
    }

    #[test]
    fn heads_are_told_apart() {
        let mut blank = 100_u32.to_be_bytes().to_vec();
        blank.extend_from_slice(&MAGIC_BLANK.to_be_bytes());
        assert_eq!(head(&blank), Head::Blank(100));
        assert_eq!(head(&blank[..7]), Head::Short);
        assert_eq!(head(&[0; 8]), Head::Bad);
        let mut out = Vec::new();
        encode(&sample("T", "1.1.1.1:1", "1.1.1.1:1"), true, &mut out).unwrap();
        assert_eq!(head(&out), Head::Message(105));
    }
}
