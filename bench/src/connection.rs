//! One connection of the load: a socket that never blocks, the requests that are ready to be
//! written to it, and the bytes that came.
//!
//! All requests of a connection lie encoded, one behind the other, in one buffer: a *slot* each. To
//! send is to name slots; neighbours leave in one piece. Nothing is allocated for a message. Knows
//! neither what the requests are nor when they are due.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use crate::answer::{self, Answer, Reader};

/// How many pieces one write hands to the kernel at most.
const PIECES: usize = 64;
/// First size of the receive buffer, bytes; it grows to the largest frame that comes.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// One connection and its slots.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    frames: Vec<u8>,
    frame_length: usize,
    outgoing: VecDeque<u32>,
    /// Bytes of the first of `outgoing` that the kernel already has.
    written: usize,
    /// The kernel took less than was offered and has not said yet that it takes more.
    blocked: bool,
    incoming: Vec<u8>,
    /// `incoming[head..tail]` has come and is not read yet.
    head: usize,
    tail: usize,
}

impl Connection {
    /// Opens a connection with `slots` copies of `frame`.
    ///
    /// # Errors
    /// The address cannot be reached.
    pub fn open(address: &str, frame: &[u8], slots: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            frames: frame.repeat(slots),
            frame_length: frame.len(),
            outgoing: VecDeque::with_capacity(slots),
            written: 0,
            blocked: false,
            incoming: vec![0; RECEIVE_BUFFER],
            head: 0,
            tail: 0,
        })
    }

    /// The request of a slot, to be changed before it is sent again.
    pub fn frame_mut(&mut self, slot: u32) -> &mut [u8] {
        let at = slot as usize * self.frame_length;
        &mut self.frames[at..at + self.frame_length]
    }

    /// Puts a slot's request behind those that wait to be written.
    pub fn queue(&mut self, slot: u32) {
        self.outgoing.push_back(slot);
    }

    /// The socket takes bytes again.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Writes what is queued, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.blocked && !self.outgoing.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let (count, offered) = self.pieces(&mut pieces);
            match (&self.stream).write_vectored(&pieces[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.blocked = taken < offered;
                    let taken = self.written + taken;
                    self.outgoing.drain(..taken / self.frame_length);
                    self.written = taken % self.frame_length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Joins queued slots that lie side by side; returns the number of pieces and their bytes.
    fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>; PIECES]) -> (usize, usize) {
        let (mut count, mut offered) = (0, 0);
        let mut waiting = self.outgoing.iter().copied().peekable();
        let mut skip = self.written;
        while let Some(first) = waiting.next().filter(|_| count < PIECES) {
            let mut end = first + 1;
            while waiting.next_if_eq(&end).is_some() {
                end += 1;
            }
            let piece = &self.frames[first as usize * self.frame_length + skip..end as usize * self.frame_length];
            skip = 0;
            offered += piece.len();
            pieces[count] = IoSlice::new(piece);
            count += 1;
        }
        (count, offered)
    }

    /// Reads once from the socket. `Ok(true)` means that the buffer was filled and more may wait.
    ///
    /// # Errors
    /// The connection broke or the broker closed it.
    pub fn receive(&mut self) -> io::Result<bool> {
        self.make_room();
        loop {
            match self.stream.read(&mut self.incoming[self.tail..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.tail += count;
                    return Ok(self.tail == self.incoming.len());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the next whole answer out of what was received, with the reader's judgement.
    pub fn next_answer(&mut self, reader: &Reader) -> Option<Result<Answer<'_>, answer::Malformed>> {
        let received = &self.incoming[self.head..self.tail];
        let length = answer::frame_length(received)?;
        let frame = received.get(..length)?;
        self.head += length;
        Some(reader.read(frame))
    }

    /// Moves the rest to the front, and grows the buffer where a frame does not fit.
    fn make_room(&mut self) {
        if self.head > 0 {
            self.incoming.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        let wanted = answer::frame_length(&self.incoming[..self.tail]).unwrap_or(0);
        if wanted > self.incoming.len() {
            self.incoming.resize(wanted, 0);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair(frame: &[u8], slots: usize) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connection = Connection::open(&address, frame, slots).unwrap();
        (connection, listener.accept().unwrap().0)
    }

    #[test]
    fn slots_leave_in_the_order_in_which_they_were_queued() {
        let (mut connection, mut peer) = pair(b"ab-", 4);
        for slot in 0..4 {
            connection.frame_mut(slot)[2] = b'0' + slot as u8;
        }
        for slot in [1, 2, 0, 3] {
            connection.queue(slot);
        }
        connection.flush().unwrap();
        let mut got = [0; 12];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ab1ab2ab0ab3");
    }

    #[test]
    fn a_write_that_is_cut_short_goes_on_where_it_stopped() {
        let frame: Vec<u8> = (0..100_003_u32).map(|i| (i % 251) as u8).collect();
        let (mut connection, mut peer) = pair(&frame, 200);
        (0..200).for_each(|slot| connection.queue(slot));
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 200 * 100_003];
            peer.read_exact(&mut got).unwrap();
            got
        });
        let mut cut_short = 0;
        while !connection.outgoing.is_empty() {
            connection.unblock();
            connection.flush().unwrap();
            cut_short += usize::from(connection.blocked);
        }
        assert!(cut_short > 0);
        assert_eq!(reader.join().unwrap(), frame.repeat(200));
    }

    #[test]
    fn an_answer_larger_than_the_buffer_is_one_answer() {
        use rocketmq_remoting::command::Command;
        let (mut connection, mut peer) = pair(b"x", 1);
        let body = vec![7_u8; 3 * RECEIVE_BUFFER];
        let frame = rocketmq_remoting::frame::to_bytes(&Command::ok().with_body(body.clone()));
        let two = frame.repeat(2);
        let writer = std::thread::spawn(move || peer.write_all(&two).map(|()| peer));
        let reader = Reader::default();
        let mut answers = 0;
        while answers < 2 {
            connection.receive().unwrap();
            while let Some(answer) = connection.next_answer(&reader) {
                assert_eq!(answer.unwrap().body, body);
                answers += 1;
            }
        }
        drop(writer.join());
    }
}
