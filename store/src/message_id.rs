//! The offset message id: the address of the storing broker and the log offset, in upper-case hex.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The id of the message at `offset` of the broker at `host`: 32 characters for IPv4, 56 for IPv6
/// (`MessageDecoder.createMessageId`).
pub fn message_id(host: SocketAddr, offset: u64) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let ip = host.ip();
    let mut id = String::with_capacity(if ip.is_ipv4() { 32 } else { 56 });
    // Each send answer carries one: the formatter would be a few per cent of a message.
    let mut push = |bytes: &[u8]| {
        for byte in bytes {
            id.push(char::from(DIGITS[usize::from(byte >> 4)]));
            id.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    };
    match ip {
        IpAddr::V4(ip) => push(&ip.octets()),
        IpAddr::V6(ip) => push(&ip.octets()),
    }
    push(&u32::from(host.port()).to_be_bytes());
    push(&offset.to_be_bytes());
    id
}

/// Takes an id apart; `None` when it is no offset message id. Lower-case digits are accepted, as Java does.
pub fn parse_message_id(id: &str) -> Option<(SocketAddr, u64)> {
    let text = id.as_bytes();
    let ip_len = match text.len() {
        32 => 4,
        56 => 16,
        _ => return None,
    };
    let mut raw = [0_u8; 28];
    for (byte, pair) in raw.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    let (v4, rest) = raw.split_first_chunk::<4>()?;
    let (ip, rest): (IpAddr, &[u8]) = if ip_len == 4 {
        (Ipv4Addr::from(*v4).into(), rest)
    } else {
        let (v6, rest) = raw.split_first_chunk::<16>()?;
        (Ipv6Addr::from(*v6).into(), rest)
    };
    let (port, rest) = rest.split_first_chunk::<4>()?;
    let offset = rest.first_chunk::<8>()?;
    let port = u16::try_from(u32::from_be_bytes(*port)).ok()?;
    Some((SocketAddr::new(ip, port), u64::from_be_bytes(*offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_what_rocketmq_prints() {
        let host = "127.0.0.1:10911".parse().unwrap();
        assert_eq!(message_id(host, 0), "7F00000100002A9F0000000000000000");
        assert_eq!(parse_message_id("7F00000100002A9F00000000000000ff"), Some((host, 255)));
    }

    #[test]
    fn ipv6_goes_there_and_back() {
        let host = "[2001:db8::7]:10911".parse().unwrap();
        let id = message_id(host, u64::MAX / 3);
        assert_eq!(id.len(), 56);
        assert_eq!(parse_message_id(&id), Some((host, u64::MAX / 3)));
    }

    #[test]
    fn other_text_is_no_id() {
        for id in ["", "7F", "7F00000100002A9F000000000000000G", "7F000001FFFFFFFF0000000000000000", &"é".repeat(16)] {
            assert_eq!(parse_message_id(id), None, "{id}");
        }
    }
}
