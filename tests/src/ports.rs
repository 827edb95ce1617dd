//! Free loopback ports for servers under test. Owns nothing but the memory of what this process has handed out.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, TcpListener},
    sync::Mutex,
};

use anyhow::{Result, bail};

/// Below the kernel's ephemeral range (so that no outgoing connection sits on a port) and below Kubernetes' node ports.
const RANGE: std::ops::Range<u16> = 10_200..29_900;

static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// One free port.
pub fn free_port() -> Result<u16> {
    free_around(0, 0)
}

/// A port for a broker: also its fast port (−2) and the port of its HA service (+1) are free.
pub fn free_broker_port() -> Result<u16> {
    free_around(2, 1)
}

fn free_around(below: u16, above: u16) -> Result<u16> {
    let mut guard = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let taken = guard.get_or_insert_default();
    for _ in 0..1000 {
        let port = rand::random_range(RANGE.start + below..RANGE.end - above);
        let block = port - below..=port + above;
        if block.clone().all(|p| !taken.contains(&p) && is_free(p)) {
            taken.extend(block);
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap() {
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let port = free_broker_port().expect("a port");
            for p in port - 2..=port + 1 {
                assert!(seen.insert(p), "port {p} handed out twice");
            }
        }
    }
}
