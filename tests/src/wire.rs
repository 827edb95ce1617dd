//! A second, independent writer and reader of remoting frames, as small as can be: what the servers are asked by it was
//! not encoded by the code under test. JSON headers only.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const UPDATE_AND_CREATE_TOPIC: i32 = 17;

/// A decoded response.
#[derive(Debug)]
pub struct Response {
    pub code: i64,
    pub remark: Option<String>,
    pub ext: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// A blocking connection. [`call`](Self::call) has one request outstanding; [`send`](Self::send) and
/// [`receive`](Self::receive) leave that to the caller.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    opaque: i32,
}

impl Wire {
    /// Connects; every later read is given up after `timeout`.
    pub fn connect(addr: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, opaque: 0 })
    }

    /// Where it is connected to.
    pub fn remote(&self) -> Result<SocketAddr> {
        Ok(self.stream.peer_addr()?)
    }

    /// A second handle of the same connection, to receive on while the first one sends.
    pub fn second_handle(&self) -> Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, opaque: self.opaque })
    }

    /// Closes the connection, for all of its handles.
    pub fn close(&self) {
        // The peer may have closed it already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Sends one request and waits for its response.
    pub fn call(&mut self, code: i32, ext: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let asked = self.send(code, ext, body)?;
        let (opaque, response) = self.receive()?;
        ensure!(opaque == asked, "an answer to {opaque} instead of {asked}");
        Ok(response)
    }

    /// Creates or changes a topic of `queues` queues to read from and to write to.
    pub fn create_topic(&mut self, topic: &str, queues: impl std::fmt::Display) -> Result<Response> {
        let queues = queues.to_string();
        let ext = [
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &queues),
            ("writeQueueNums", &queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        self.call(UPDATE_AND_CREATE_TOPIC, &ext, &[])
    }

    /// Sends one request; returns the number that its response will carry.
    pub fn send(&mut self, code: i32, ext: &[(&str, &str)], body: &[u8]) -> Result<i32> {
        self.opaque += 1;
        self.stream.write_all(&frame(code, self.opaque, ext, body))?;
        Ok(self.opaque)
    }

    /// Waits for the next response: the number of its request, and what it says.
    pub fn receive(&mut self) -> Result<(i32, Response)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let total = u32::from_be_bytes(length) as usize;
        ensure!((4..=64 << 20).contains(&total), "a frame of {total} bytes");
        let mut raw = vec![0; total];
        self.stream.read_exact(&mut raw)?;
        let header_length = u32::from_be_bytes([0, raw[1], raw[2], raw[3]]) as usize;
        ensure!(
            raw[0] == 0 && header_length + 4 <= total,
            "a header of {header_length} bytes, serialization {}",
            raw[0]
        );
        let header: Value = serde_json::from_slice(&raw[4..4 + header_length])?;
        let opaque = header["opaque"].as_i64().and_then(|opaque| i32::try_from(opaque).ok()).context("no opaque")?;
        let ext = header["extFields"].as_object().into_iter().flatten();
        let response = Response {
            code: header["code"].as_i64().context("no code")?,
            remark: header["remark"].as_str().map(str::to_owned),
            ext: ext
                .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
                .collect(),
            body: raw.split_off(4 + header_length),
        };
        Ok((opaque, response))
    }
}

/// One request frame: total length, header length (serialization type 0 in the top byte), JSON header, body.
pub fn frame(code: i32, opaque: i32, ext: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let ext: BTreeMap<_, _> = ext.iter().copied().collect();
    let header = json!({
        "code": code, "opaque": opaque, "flag": 0, "language": "JAVA", "version": 395, "serializeTypeCurrentRPC": "JSON", "extFields": ext,
    })
    .to_string();
    let mut frame = Vec::with_capacity(8 + header.len() + body.len());
    frame.extend(((4 + header.len() + body.len()) as u32).to_be_bytes());
    frame.extend((header.len() as u32).to_be_bytes());
    frame.extend(header.as_bytes());
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_lengths() {
        let raw = frame(105, 7, &[("topic", "T")], b"abc");
        let header_length = u32::from_be_bytes([raw[4], raw[5], raw[6], raw[7]]) as usize;
        assert_eq!(u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize, raw.len() - 4);
        assert_eq!(&raw[8 + header_length..], b"abc");
        let header: Value = serde_json::from_slice(&raw[8..8 + header_length]).expect("JSON");
        assert_eq!(header["extFields"]["topic"], "T");
    }
}
