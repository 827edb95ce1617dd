//! A proxy that stands between real peers and writes down what they say, frame by frame.
//!
//! Servers tell clients the addresses of servers; the proxy puts its own in their place, so that clients come through
//! it. Nothing else is changed. JSON headers only.

use std::{
    collections::HashMap,
    io::{Read, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::ports;

/// From a broker's port down to its fast one.
const FAST_PORT_DISTANCE: u16 = 2;

/// A request and what it was answered, as the bytes of header and body.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request's code.
    pub code: i64,
    pub request: Frame,
    /// None for a one-way request.
    pub response: Option<Frame>,
}

/// What one side said.
#[derive(Debug, Clone)]
pub struct Frame {
    pub header: String,
    pub body: Vec<u8>,
}

impl Frame {
    /// The header as JSON.
    pub fn fields(&self) -> Value {
        serde_json::from_str(&self.header).unwrap_or_default()
    }
}

/// What has been said so far, and whose addresses are replaced by whose.
#[derive(Debug, Default)]
struct Book {
    /// In the order of the requests.
    exchanges: Vec<Exchange>,
    /// Requests that wait for their answer: connection and opaque to the place in `exchanges`.
    open: HashMap<(u64, i64), usize>,
    aliases: Vec<(Vec<u8>, Vec<u8>)>,
    connections: u64,
}

/// Proxies that write into one book.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Book>>);

impl Recorder {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a port in front of `server`, and one in front of its fast port (a broker's second one, which slaves use): who
    /// is told of the server from now on is told of these. They stay open as long as the program.
    pub fn proxy(&self, server: SocketAddr) -> Result<SocketAddr> {
        let port = loop {
            let port = ports::free_broker_port()?;
            if port.to_string().len() == server.port().to_string().len() {
                break port;
            }
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let named = |address: SocketAddr| address.to_string().into_bytes();
        // An offset id begins with the broker's address in hex.
        let in_hex = |address: SocketAddr| format!("7F000001{:08X}", address.port()).into_bytes();
        self.book().aliases.extend([(named(server), named(address)), (in_hex(server), in_hex(address))]);
        for distance in [0, FAST_PORT_DISTANCE] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port - distance))?;
            let server = SocketAddr::new(server.ip(), server.port() - distance);
            let recorder = self.clone();
            thread::spawn(move || {
                for client in listener.incoming().map_while(std::result::Result::ok) {
                    // A peer that is gone again is no reason to stop.
                    let _ = recorder.connect(client, server);
                }
            });
        }
        Ok(address)
    }

    fn connect(&self, client: TcpStream, server: SocketAddr) -> Result<()> {
        let server = TcpStream::connect(server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let connection = {
            let mut book = self.book();
            book.connections += 1;
            book.connections
        };
        for (from, to, from_client) in [(client.try_clone()?, server.try_clone()?, true), (server, client, false)] {
            let recorder = self.clone();
            thread::spawn(move || {
                // Either side may end it at any time.
                let _ = recorder.pump(from, &to, connection, from_client);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    fn pump(&self, mut from: TcpStream, mut to: &TcpStream, connection: u64, from_client: bool) -> Result<()> {
        loop {
            let mut length = [0; 4];
            from.read_exact(&mut length)?;
            let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length))?];
            from.read_exact(&mut rest)?;
            if !from_client {
                self.rename(&mut rest);
            }
            let (header_length, content) = rest.split_first_chunk::<4>().context("a frame without a header")?;
            let header_length = u32::from_be_bytes(*header_length);
            ensure!(header_length >> 24 == 0, "a header that is not JSON");
            let (header, body) = content.split_at_checked(usize::try_from(header_length)?).context("a cut frame")?;
            let frame = Frame { header: String::from_utf8(header.to_vec())?, body: body.to_vec() };
            self.write_down(connection, from_client, frame);
            to.write_all(&length)?;
            to.write_all(&rest)?;
        }
    }

    /// Replaces addresses by others of the same length.
    fn rename(&self, bytes: &mut [u8]) {
        for (name, alias) in &self.book().aliases {
            let mut at = 0;
            while let Some(found) = bytes[at..].windows(name.len()).position(|window| window == name) {
                at += found;
                bytes[at..at + alias.len()].copy_from_slice(alias);
                at += alias.len();
            }
        }
    }

    fn write_down(&self, connection: u64, from_client: bool, frame: Frame) {
        let fields = frame.fields();
        let number = |name: &str| fields[name].as_i64().unwrap_or(0);
        let (flag, place) = (number("flag"), (connection, number("opaque")));
        let mut book = self.book();
        let book = &mut *book;
        match (from_client, flag & 1 != 0) {
            (true, false) => {
                if flag & 2 == 0 {
                    book.open.insert(place, book.exchanges.len());
                }
                book.exchanges.push(Exchange { code: number("code"), request: frame, response: None });
            }
            (false, true) => {
                if let Some(at) = book.open.remove(&place) {
                    book.exchanges[at].response = Some(frame);
                }
            }
            // What a server asks of its clients is not written down.
            _ => {}
        }
    }

    /// Everything up to now that was answered or wants no answer.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let book = self.book();
        let waiting: Vec<usize> = book.open.values().copied().collect();
        let whole = book.exchanges.iter().enumerate().filter(|(at, _)| !waiting.contains(at));
        whole.map(|(_, exchange)| exchange.clone()).collect()
    }
}
