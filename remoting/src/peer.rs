//! One connection, the same whichever side opened it: both sides send requests and answer them.
//!
//! A single task drives each connection. It reads what has come, hands every whole frame to the
//! [`Service`], gathers the answers and writes them by one vectored write; an answer that is not
//! ready yet waits beside the loop without holding up the next request.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::command::{Command, FLAG_ONEWAY, FLAG_RESPONSE, SerializeType};
use crate::error::{FrameError, RemotingError};
use crate::frame::{self, FrameLimits};
use crate::rejections::{self, Rejections};
use crate::response_code::ResponseCode;

/// What a service says to a request.
pub enum Answer {
    /// Nothing is sent.
    None,
    /// The answer, ready at once: the way of every request that needs no waiting.
    Now(Command),
    /// The answer comes later. The future is dropped with the connection.
    Later(BoxFuture<'static, Option<Command>>),
}

impl Answer {
    /// An answer that `future` computes.
    pub fn later(future: impl Future<Output = Command> + Send + 'static) -> Self {
        Self::Later(future.map(Some).boxed())
    }
}

impl From<Command> for Answer {
    fn from(command: Command) -> Self {
        Self::Now(command)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Now(command) => f.debug_tuple("Now").field(command).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// Answers requests.
///
/// What it keeps of a request's body beyond the answer it must copy: bodies share the memory of the connection's read
/// buffer.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. It runs on the connection's task, so it may not block for long; a
    /// panic ends this request only.
    fn call(&self, peer: &Arc<Peer>, request: Command) -> Answer;

    /// Runs `calls`, which makes the [`call`](Self::call)s of requests that came together: where a service can do something
    /// once for all of them.
    fn together(&self, calls: &mut dyn FnMut()) {
        calls();
    }

    /// The connection has ended.
    fn disconnected(&self, peer: &Arc<Peer>) {
        let _ = peer;
    }
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Of each frame.
    pub frame: FrameLimits,
    /// Requests of the peer that wait for their answer at once; more are refused with
    /// `SYSTEM_BUSY`. Held pulls count, one for each queue of a consumer.
    pub in_flight: usize,
    /// Bytes of answers that wait to be written before nothing more is read, and of all commands before no further one of our own is
    /// taken. Our own requests do not stop the reading: else two sides that both ask would wait for each other.
    pub outbox_bytes: usize,
    /// Commands of our own that wait to be sent.
    pub outgoing: usize,
    /// A connection without a byte in either direction is closed after this time: one on which nothing is owed, or one whose
    /// peer does not read what waits for it.
    pub idle: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long answers may still be written once the server shuts down.
    pub grace: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            frame: FrameLimits::default(),
            in_flight: 16_384,
            outbox_bytes: 4 * 1024 * 1024,
            outgoing: 4096,
            idle: Duration::from_mins(2),
            // Netty's, and so Java's.
            handshake: Duration::from_secs(10),
            grace: Duration::from_secs(3),
        }
    }
}

/// The other side of a connection.
pub struct Peer {
    id: u64,
    remote: SocketAddr,
    local: SocketAddr,
    outgoing: mpsc::Sender<Command>,
    outgoing_max: usize,
    waiting: Mutex<HashMap<i32, oneshot::Sender<Command>>>,
    next_opaque: AtomicI32,
    closed: CancellationToken,
    /// Why TLS ended the connection, if it did.
    refusal: OnceLock<String>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({}, {})", self.id, self.remote)
    }
}

impl Peer {
    /// Distinguishes connections of this process; never used twice.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The other side's address.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Our own address on this connection.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the connection has ended, or is about to.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// No answer came in time, or the connection closed. The peer may have acted all the same.
    pub async fn request(&self, mut command: Command, timeout: Duration) -> Result<Command, RemotingError> {
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        command.opaque = opaque;
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(opaque, sender);
        let _forget = Forget { peer: self, opaque };
        let exchange = async {
            self.outgoing.send(command).await.map_err(|_| self.closed_error())?;
            tokio::select! {
                // An answer that came just before the end still counts.
                biased;
                answer = receiver => answer.map_err(|_| self.closed_error()),
                () = self.closed.cancelled() => Err(self.closed_error()),
            }
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(RemotingError::Timeout { address: self.remote.to_string(), timeout }),
        }
    }

    /// Queues a request that wants no answer; does not wait.
    ///
    /// # Errors
    /// The connection closed, or too many commands wait already.
    pub fn oneway(&self, mut command: Command) -> Result<(), RemotingError> {
        command.flag |= FLAG_ONEWAY;
        command.opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        self.outgoing.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                RemotingError::Backlog { address: self.remote.to_string(), limit: self.outgoing_max }
            }
            mpsc::error::TrySendError::Closed(_) => self.closed_error(),
        })
    }

    fn closed_error(&self) -> RemotingError {
        RemotingError::Closed { address: self.remote.to_string(), refusal: self.refusal.get().cloned() }
    }

    fn answered(&self, response: Command) {
        let waiting = self.waiting.lock().remove(&response.opaque);
        if let Some(sender) = waiting {
            // Whoever asked may have given up in the meantime.
            let _ = sender.send(response);
        } else {
            tracing::debug!(peer = %self.remote, opaque = response.opaque, "an answer that nobody waits for");
        }
    }
}

/// Removes a request that is given up from the table of those that wait.
struct Forget<'a> {
    peer: &'a Peer,
    opaque: i32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.peer.waiting.lock().remove(&self.opaque);
    }
}

/// The bytes of a connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// A connection that nobody drives yet.
pub(crate) struct Connection {
    pub(crate) peer: Arc<Peer>,
    stream: Stream,
    outgoing: mpsc::Receiver<Command>,
}

/// An IPv4 address that a socket of both kinds shows as an IPv6 one is what it is: it stands in messages and is shown to users,
/// as in Java (`InetAddress.getByAddress`).
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Connection {
    pub(crate) fn new(stream: Stream, limits: &ConnectionLimits) -> io::Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let socket = stream.tcp();
        socket.set_nodelay(true)?;
        let (sender, outgoing) = mpsc::channel(limits.outgoing);
        let peer = Peer {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            remote: canonical(socket.peer_addr()?),
            local: canonical(socket.local_addr()?),
            outgoing: sender,
            outgoing_max: limits.outgoing,
            waiting: Mutex::default(),
            next_opaque: AtomicI32::new(0),
            closed: CancellationToken::new(),
            refusal: OnceLock::new(),
        };
        Ok(Self { peer: Arc::new(peer), stream, outgoing })
    }

    /// Runs the connection to its end.
    pub(crate) async fn drive(
        self,
        service: Arc<dyn Service>,
        limits: ConnectionLimits,
        rejections: Arc<Rejections>,
        shutdown: CancellationToken,
    ) {
        let Self { peer, stream, outgoing } = self;
        let driver = Driver {
            peer: Arc::clone(&peer),
            service: Arc::clone(&service),
            limits,
            rejections,
            outgoing,
            buffer: BytesMut::new(),
            read_size: READ_SIZE_MIN,
            outbox: Outbox::default(),
            in_flight: FuturesUnordered::new(),
        };
        let ended = match stream {
            Stream::Plain(mut stream) => {
                let (mut reader, mut writer) = stream.split();
                driver.run(&mut reader, &mut writer, shutdown).await
            }
            // In a box of its own, so that plain connections do not carry its size.
            Stream::Tls(stream) => Box::pin(drive_tls(driver, *stream, shutdown)).await,
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %peer.remote, %error, "the connection ended");
        }
        peer.closed.cancel();
        peer.waiting.lock().clear();
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| service.disconnected(&peer)));
        if ended.is_err() {
            tracing::error!(peer = %peer.remote, "the service panicked at the end of a connection");
        }
    }
}

/// How long the peer may take to be told of the end of a TLS connection.
const FAREWELL: Duration = Duration::from_secs(1);

async fn drive_tls(driver: Driver, stream: TlsStream<TcpStream>, shutdown: CancellationToken) -> io::Result<()> {
    let peer = Arc::clone(&driver.peer);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ended = driver.run(&mut reader, &mut writer, shutdown).await;
    if let Err(error) = &ended
        && let Some(refusal) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())
    {
        // Such as a certificate that the other side does not believe, which nobody else would tell.
        tracing::warn!(peer = %peer.remote, "TLS connection broken: {refusal}");
        let _ = peer.refusal.set(refusal.to_string());
    }
    // The peer may be gone; it will see the end of the connection either way.
    let _ = tokio::time::timeout(FAREWELL, writer.shutdown()).await;
    ended
}

/// A read asks for this much at first; idle connections cost no more.
const READ_SIZE_MIN: usize = 4 * 1024;
/// And for this much at most, where the peer keeps the buffer full.
const READ_SIZE_MAX: usize = 256 * 1024;

type InFlight = FuturesUnordered<BoxFuture<'static, Option<Command>>>;

struct Driver {
    peer: Arc<Peer>,
    service: Arc<dyn Service>,
    limits: ConnectionLimits,
    rejections: Arc<Rejections>,
    outgoing: mpsc::Receiver<Command>,
    buffer: BytesMut,
    read_size: usize,
    outbox: Outbox,
    in_flight: InFlight,
}

impl Driver {
    /// Compiled once for plain connections and once for TLS.
    async fn run<R, W>(mut self, reader: &mut R, writer: &mut W, shutdown: CancellationToken) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let closed = self.peer.closed.clone();
        let mut closed = std::pin::pin!(closed.cancelled());
        let mut shutdown = std::pin::pin!(shutdown.cancelled());
        let mut last_byte = Instant::now();
        let mut ticks = tokio::time::interval(self.limits.idle / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ends_at: Option<Instant> = None;
        loop {
            if ends_at.is_none() {
                self.serve_buffered()?;
            } else if self.outbox.is_empty() && self.in_flight.is_empty() {
                return Ok(());
            }
            let reading = ends_at.is_none() && self.outbox.answer_bytes() < self.limits.outbox_bytes;
            if reading && self.buffer.capacity() - self.buffer.len() < READ_SIZE_MIN {
                self.buffer.reserve(self.read_size);
            }
            tokio::select! {
                biased;
                () = &mut closed => return Ok(()),
                written = self.outbox.write(writer), if !self.outbox.is_empty() => {
                    written?;
                    last_byte = Instant::now();
                }
                Some(answer) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    if let Some(answer) = answer {
                        self.outbox.push(&answer);
                    }
                }
                Some(command) = self.outgoing.recv(), if self.outbox.bytes < self.limits.outbox_bytes => {
                    self.outbox.push_own(&command);
                    while self.outbox.bytes < self.limits.outbox_bytes
                        && let Ok(more) = self.outgoing.try_recv()
                    {
                        self.outbox.push_own(&more);
                    }
                }
                read = reader.read_buf(&mut self.buffer), if reading => {
                    let size = read?;
                    if size == 0 {
                        return self.flush(writer).await;
                    }
                    last_byte = Instant::now();
                    if self.buffer.len() == self.buffer.capacity() {
                        self.read_size = (self.read_size * 2).min(READ_SIZE_MAX);
                    }
                }
                () = &mut shutdown, if ends_at.is_none() => {
                    ends_at = Some(Instant::now() + self.limits.grace);
                    ticks = tokio::time::interval(self.limits.grace / 8);
                }
                now = ticks.tick() => {
                    if ends_at.is_some_and(|end| now >= end) {
                        return Ok(());
                    }
                    if now.duration_since(last_byte) < self.limits.idle {
                        continue;
                    }
                    if !self.outbox.is_empty() {
                        let (bytes, idle) = (self.outbox.bytes, self.limits.idle);
                        tracing::warn!(peer = %self.peer.remote, bytes, ?idle, "the peer does not read; the connection is closed");
                        rejections::count(&self.rejections.unread);
                        return Ok(());
                    }
                    if self.in_flight.is_empty() {
                        tracing::info!(peer = %self.peer.remote, "idle connection closed");
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn flush<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<()> {
        while !self.outbox.is_empty() {
            self.outbox.write(writer).await?;
        }
        Ok(())
    }

    /// Serves the whole frames of the read buffer, as far as their answers find room.
    fn serve_buffered(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let service = Arc::clone(&self.service);
        let mut result = Ok(());
        service.together(&mut || result = self.serve_frames());
        result
    }

    fn serve_frames(&mut self) -> io::Result<()> {
        while self.outbox.answer_bytes() < self.limits.outbox_bytes {
            let decoded = frame::decode(&mut self.buffer, self.limits.frame);
            let command = decoded.map_err(|error| {
                tracing::warn!(peer = %self.peer.remote, %error, "not RocketMQ's protocol; the connection is closed");
                if matches!(error, FrameError::TooLarge { .. } | FrameError::HeaderTooLarge { .. }) {
                    rejections::count(&self.rejections.frames);
                }
                io::Error::new(io::ErrorKind::InvalidData, error)
            })?;
            match command {
                None => break,
                Some(response) if response.is_response() => self.peer.answered(response),
                Some(request) => self.serve(request),
            }
        }
        Ok(())
    }

    fn serve(&mut self, request: Command) {
        let ticket = Ticket::of(&request);
        if self.in_flight.len() >= self.limits.in_flight {
            let remark = format!(
                "[OVERLOAD]system busy, start flow control for a while, in-flight requests of this connection reached the limit {}",
                self.limits.in_flight
            );
            rejections::count(&self.rejections.requests);
            self.answer(ticket, Command::refusal(ResponseCode::SYSTEM_BUSY, remark));
            return;
        }
        let (service, peer) = (&self.service, &self.peer);
        let answer = std::panic::catch_unwind(AssertUnwindSafe(|| service.call(peer, request)));
        match answer {
            Ok(Answer::None) => {}
            Ok(Answer::Now(answer)) => self.answer(ticket, answer),
            Ok(Answer::Later(future)) => {
                let waiting = AssertUnwindSafe(future).catch_unwind().map(move |answer| match answer {
                    Ok(answer) => answer.and_then(|answer| ticket.stamp(answer)),
                    Err(_) => ticket.stamp(ticket.panicked()),
                });
                self.in_flight.push(waiting.boxed());
            }
            Err(_) => {
                let answer = ticket.panicked();
                self.answer(ticket, answer);
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Command) {
        if let Some(answer) = ticket.stamp(answer) {
            self.outbox.push(&answer);
        }
    }
}

/// What an answer must take over from its request.
#[derive(Clone, Copy)]
struct Ticket {
    code: i32,
    opaque: i32,
    oneway: bool,
    serialize_type: SerializeType,
}

impl Ticket {
    fn of(request: &Command) -> Self {
        Self {
            code: request.code,
            opaque: request.opaque,
            oneway: request.is_oneway(),
            serialize_type: request.serialize_type,
        }
    }

    /// Makes `answer` the answer to this request; one-way requests have none.
    fn stamp(self, mut answer: Command) -> Option<Command> {
        answer.opaque = self.opaque;
        answer.flag |= FLAG_RESPONSE;
        answer.serialize_type = self.serialize_type;
        (!self.oneway).then_some(answer)
    }

    fn panicked(self) -> Command {
        tracing::error!(code = self.code, "the handler of a request panicked");
        Command::refusal(ResponseCode::SYSTEM_ERROR, "the request's handler failed; the broker's log says where")
    }
}

/// Slices that wait to be written, in order.
#[derive(Default)]
struct Outbox {
    queue: VecDeque<Bytes>,
    /// Headers and small bodies, gathered into one slice.
    tail: BytesMut,
    bytes: usize,
    /// Where our own requests lie, by what has been pushed since the beginning, and how many of `bytes` are theirs.
    own: VecDeque<Range<u64>>,
    own_bytes: usize,
    /// Bytes written since the beginning.
    done: u64,
    /// Written to a stream that may still hold some of it back, as TLS does.
    unflushed: bool,
}

/// A body shorter than this is copied behind its header; a longer one is written from where it lies.
const COPY_MAX: usize = 1024;
/// Slices of one write; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;

impl Outbox {
    fn is_empty(&self) -> bool {
        self.bytes == 0 && !self.unflushed
    }

    /// Bytes that are there because the peer asked.
    fn answer_bytes(&self) -> usize {
        self.bytes - self.own_bytes
    }

    fn push_own(&mut self, command: &Command) {
        let before = self.bytes;
        self.push(command);
        let size = self.bytes - before;
        let end = self.done + self.bytes as u64;
        let start = end - size as u64;
        self.own_bytes += size;
        match self.own.back_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => self.own.push_back(start..end),
        }
    }

    fn push(&mut self, command: &Command) {
        let before = self.tail.len();
        let mut queued = 0;
        let queue = &mut self.queue;
        frame::encode(command, &mut self.tail, |tail, body| {
            if body.len() < COPY_MAX {
                tail.extend_from_slice(body);
            } else {
                queued += tail.len() + body.len();
                queue.push_back(tail.split().freeze());
                queue.push_back(body.clone());
            }
        });
        self.bytes = self.bytes + queued + self.tail.len() - before;
    }

    /// Writes once, as much as the socket takes. Cancelling it loses nothing.
    async fn write<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.bytes > 0 {
            let written = self.write_slices(writer).await?;
            self.unflushed = true;
            self.written(written);
        }
        // A plain socket has nothing to flush and is ready at once.
        writer.flush().await?;
        self.unflushed = false;
        Ok(())
    }

    async fn write_slices<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<usize> {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(&self.queue) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        match writer.write_vectored(&slices[..count]).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    /// Forgets what has been written.
    fn written(&mut self, mut written: usize) {
        self.bytes -= written;
        self.done += written as u64;
        while let Some(range) = self.own.front_mut().filter(|range| range.start < self.done) {
            let end = range.end.min(self.done);
            self.own_bytes -= (end - range.start) as usize;
            range.start = end;
            if range.is_empty() {
                self.own.pop_front();
            }
        }
        while let Some(front) = self.queue.front_mut() {
            if front.len() > written {
                front.advance(written);
                break;
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }
}
