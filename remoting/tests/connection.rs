//! Servers and clients over real sockets: what a connection promises, and what it does to peers
//! that break the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rocketmq_remoting::frame::{self, FrameLimits};
use rocketmq_remoting::{
    Answer, Body, Client, ClientConfig, Command, Peer, Rejections, RemotingError, RequestCode, ResponseCode,
    SerializeType, Server, ServerConfig, Service,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Answers at once with the request's body.
const ECHO: RequestCode = RequestCode(1);
/// Answers after 300 ms.
const SLOW: RequestCode = RequestCode(2);
/// Panics at once.
const PANIC: RequestCode = RequestCode(3);
/// Panics after a moment.
const PANIC_LATER: RequestCode = RequestCode(4);
/// Asks the peer back, and answers with what it said.
const ASK_BACK: RequestCode = RequestCode(5);
/// Answers with a body in many large slices.
const PARTS: RequestCode = RequestCode(6);

#[derive(Default)]
struct Sample {
    disconnected: AtomicUsize,
}

impl Service for Sample {
    fn call(&self, peer: &Arc<Peer>, request: Command) -> Answer {
        match request.request_code() {
            ECHO => Command::ok().with_body(request.body).into(),
            SLOW => Answer::later(async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Command::ok()
            }),
            PANIC => panic!("as the test wants"),
            PANIC_LATER => Answer::later(async {
                tokio::task::yield_now().await;
                panic!("as the test wants")
            }),
            ASK_BACK => {
                let peer = Arc::clone(peer);
                Answer::later(async move {
                    match peer
                        .request(Command::request(ECHO).with_body("from the server"), Duration::from_secs(5))
                        .await
                    {
                        Ok(answer) => Command::ok().with_body(answer.body),
                        Err(error) => Command::refusal(ResponseCode::SYSTEM_ERROR, error.to_string()),
                    }
                })
            }
            PARTS => {
                let parts: Vec<Bytes> = (0..200u8).map(|part| Bytes::from(vec![part; 3000])).collect();
                Command::ok().with_body(Body::from(parts)).into()
            }
            _ => Answer::None,
        }
    }

    fn disconnected(&self, _: &Arc<Peer>) {
        self.disconnected.fetch_add(1, Ordering::SeqCst);
    }
}

struct Running {
    address: SocketAddr,
    service: Arc<Sample>,
    rejections: Arc<Rejections>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn serve(change: impl FnOnce(&mut ServerConfig)) -> Running {
    let mut config = ServerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    change(&mut config);
    let rejections = Arc::clone(&config.rejections);
    let server = Server::bind(config).unwrap();
    let address = server.local_addr().unwrap();
    let service = Arc::new(Sample::default());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(Arc::clone(&service) as _, shutdown.clone()));
    Running { address, service, rejections, shutdown, task }
}

async fn read_frame(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Command> {
    loop {
        if let Some(command) = frame::decode(buffer, FrameLimits::default()).unwrap() {
            return Some(command);
        }
        if stream.read_buf(buffer).await.unwrap() == 0 {
            return None;
        }
    }
}

fn request(code: RequestCode, opaque: i32) -> Command {
    Command { opaque, ..Command::request(code) }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn pipelined_requests_are_all_answered_in_kind() {
    let running = serve(|_| {});
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut requests = BytesMut::new();
    for opaque in 0..2000 {
        let mut command = request(if opaque % 500 == 7 { SLOW } else { ECHO }, opaque);
        command.body = Body::from(vec![b'x'; opaque as usize]);
        command.serialize_type = if opaque % 2 == 0 { SerializeType::Json } else { SerializeType::RocketMq };
        requests.extend_from_slice(&frame::to_bytes(&command));
    }
    let (mut reader, mut writer) = stream.split();
    let write = async { writer.write_all(&requests).await.unwrap() };
    let read = async {
        let mut buffer = BytesMut::new();
        let mut seen = vec![false; 2000];
        let mut count = 0;
        while count < 2000 {
            while let Some(answer) = frame::decode(&mut buffer, FrameLimits::default()).unwrap() {
                assert!(answer.is_response());
                let opaque = answer.opaque as usize;
                assert!(!std::mem::replace(&mut seen[opaque], true), "{opaque} was answered twice");
                let expected = if opaque.is_multiple_of(2) { SerializeType::Json } else { SerializeType::RocketMq };
                assert_eq!(answer.serialize_type, expected);
                assert!(opaque % 500 == 7 || answer.body.len() == opaque);
                count += 1;
            }
            assert!(count == 2000 || reader.read_buf(&mut buffer).await.unwrap() > 0);
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(write, read) }).await.unwrap();
}

#[tokio::test]
async fn a_body_in_many_slices_arrives_whole() {
    let running = serve(|_| {});
    let client = Client::default();
    let answer = client.invoke(&running.address.to_string(), Command::request(PARTS), PATIENCE).await.unwrap();
    let body = answer.body.into_bytes();
    assert_eq!(body.len(), 600_000);
    assert!(body.chunks(3000).enumerate().all(|(part, bytes)| bytes.iter().all(|byte| usize::from(*byte) == part)));
}

#[tokio::test]
async fn both_sides_may_ask() {
    let running = serve(|_| {});
    let client = Client::with_service(ClientConfig::default(), Arc::new(Sample::default()));
    let answer = client.invoke(&running.address.to_string(), Command::request(ASK_BACK), PATIENCE).await.unwrap();
    assert_eq!(answer.body, Body::from("from the server"));
    let mute = Client::default();
    let answer = mute.invoke(&running.address.to_string(), Command::request(ASK_BACK), PATIENCE).await.unwrap();
    assert_eq!(answer.body, Body::Empty, "a client without a service refuses, and the server goes on");
}

#[tokio::test]
async fn a_panic_ends_one_request_only() {
    let running = serve(|_| {});
    let client = Client::default();
    let address = running.address.to_string();
    for code in [PANIC, PANIC_LATER] {
        let answer = client.invoke(&address, Command::request(code), PATIENCE).await.unwrap();
        assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    }
    let answer = client.invoke(&address, Command::request(ECHO).with_body("on"), PATIENCE).await.unwrap();
    assert_eq!(answer.body, Body::from("on"));
    assert_eq!(running.service.disconnected.load(Ordering::SeqCst), 0, "it is still the same connection");
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_with_the_limit() {
    let running = serve(|config| config.limits.in_flight = 2);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for opaque in 0..3 {
        stream.write_all(&frame::to_bytes(&request(SLOW, opaque))).await.unwrap();
    }
    let mut buffer = BytesMut::new();
    let first = read_frame(&mut stream, &mut buffer).await.unwrap();
    assert_eq!((first.opaque, first.response_code()), (2, ResponseCode::SYSTEM_BUSY));
    assert!(first.remark().ends_with("limit 2"), "{}", first.remark());
    assert_eq!(running.rejections.requests(), 1);
    for _ in 0..2 {
        assert_eq!(read_frame(&mut stream, &mut buffer).await.unwrap().response_code(), ResponseCode::SUCCESS);
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_close_their_connection_and_no_other() {
    let running = serve(|config| config.limits.frame = FrameLimits { frame: 4096, header: 1024 });
    let address = running.address.to_string();
    let client = Client::default();
    client.invoke(&address, Command::request(ECHO), PATIENCE).await.unwrap();
    let hostile: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0, 0, 0x10, 1], &[255; 64], b"\0\0\0\x08\0\0\0\x04{\"a\""];
    for bytes in hostile {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(closed.is_err() || rest.is_empty());
    }
    assert_eq!(running.rejections.frames(), 2, "one that is cut or means nothing meets no limit");
    let half = TcpStream::connect(running.address).await.unwrap();
    half.try_write(&[0, 0, 1]).unwrap();
    client.invoke(&address, Command::request(ECHO), PATIENCE).await.unwrap();
    assert_eq!(
        running.service.disconnected.load(Ordering::SeqCst),
        hostile.len(),
        "the half frame may still be completed"
    );
}

#[tokio::test]
async fn connections_over_the_limit_are_closed() {
    let running = serve(|config| config.connections_max = 1);
    let client = Client::default();
    client.invoke(&running.address.to_string(), Command::request(ECHO), PATIENCE).await.unwrap();
    let mut second = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, second.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    assert_eq!(running.rejections.connections(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let running = serve(|config| config.limits.idle = Duration::from_millis(100));
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let mut waiting = TcpStream::connect(running.address).await.unwrap();
    waiting.write_all(&frame::to_bytes(&request(SLOW, 9))).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, idle.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let answer = read_frame(&mut waiting, &mut BytesMut::new()).await.unwrap();
    assert_eq!(answer.opaque, 9, "its answer took longer than the idle time");
}

#[tokio::test]
async fn a_one_way_request_is_never_answered() {
    let running = serve(|_| {});
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for code in [ECHO, PANIC, SLOW] {
        let command = Command { flag: 2, ..request(code, 1) };
        stream.write_all(&frame::to_bytes(&command)).await.unwrap();
    }
    stream.write_all(&frame::to_bytes(&request(SLOW, 2))).await.unwrap();
    assert_eq!(read_frame(&mut stream, &mut BytesMut::new()).await.unwrap().opaque, 2);
}

#[tokio::test]
async fn a_server_that_shuts_down_gives_the_answers_that_it_owes() {
    let running = serve(|_| {});
    let client = Client::default();
    let address = running.address.to_string();
    client.invoke(&address, Command::request(ECHO), PATIENCE).await.unwrap();
    let slow = async {
        let slow = client.invoke(&address, Command::request(SLOW), PATIENCE);
        slow.await.unwrap().response_code()
    };
    let stop = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        running.shutdown.cancel();
    };
    let (code, ()) = tokio::join!(slow, stop);
    assert_eq!(code, ResponseCode::SUCCESS);
    tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_client_connects_again_and_gives_up_in_time() {
    let running = serve(|_| {});
    let address = running.address.to_string();
    let client = Client::new(ClientConfig { connect_timeout: Duration::from_secs(2), ..ClientConfig::default() });
    let late = client.invoke(&address, Command::request(SLOW), Duration::from_millis(30)).await;
    assert!(matches!(late, Err(RemotingError::Timeout { .. })));
    client.invoke(&address, Command::request(ECHO), PATIENCE).await.unwrap();
    client.peer(&address).await.unwrap().close();
    client.invoke(&address, Command::request(ECHO), PATIENCE).await.unwrap();
    running.shutdown.cancel();
    running.task.await.unwrap();
    let refused = client.invoke(&address, Command::request(ECHO), PATIENCE).await;
    assert!(matches!(refused, Err(RemotingError::Connect { .. } | RemotingError::Closed { .. })), "{refused:?}");
}

/// Both have more to say than the other's sockets take: who waits for answers goes on reading them.
#[tokio::test]
async fn two_sides_with_much_to_say_do_not_wait_for_each_other() {
    const SIZE: usize = 512 * 1024;
    let running = serve(|config| config.limits.outbox_bytes = SIZE);
    let mut config = ClientConfig::default();
    config.limits.outbox_bytes = SIZE;
    let client = Client::new(config);
    let address = running.address.to_string();
    // All at once on one connection, 64 MiB each way.
    let exchanges = (0..128u8).map(|number| {
        let (client, address) = (&client, &address);
        async move {
            let request = Command::request(ECHO).with_body(vec![number; SIZE]);
            let answer = client.invoke(address, request, PATIENCE).await.unwrap();
            assert_eq!(answer.body.bytes()[..], vec![number; SIZE]);
        }
    });
    futures::future::join_all(exchanges).await;
    // The server asks while its answers take all the room that there is.
    let echo = |number| client.invoke(&address, Command::request(ECHO).with_body(vec![number; SIZE]), PATIENCE);
    let asked = client.invoke(&address, Command::request(ASK_BACK), PATIENCE);
    let (answers, asked) = tokio::join!(futures::future::join_all((0..16u8).map(echo)), asked);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(asked.unwrap().response_code(), ResponseCode::SUCCESS);
    assert_eq!(running.rejections.unread(), 0);
}

/// A peer that asks and never reads costs no more than its limit, and not for ever.
#[tokio::test]
async fn a_peer_that_does_not_read_is_closed() {
    let running = serve(|config| {
        config.limits.outbox_bytes = 64 * 1024;
        config.limits.idle = Duration::from_millis(400);
    });
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut slow = request(SLOW, 1);
    slow.body = Body::from("one more answer is owed");
    stream.write_all(&frame::to_bytes(&slow)).await.unwrap();
    let mut echo = request(ECHO, 2);
    echo.body = Body::from(vec![b'x'; 1024 * 1024]);
    let frame = frame::to_bytes(&echo);
    let refused = async { while stream.write_all(&frame).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("the server closes the connection");
    let told = async {
        while running.service.disconnected.load(Ordering::SeqCst) < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the service hears of it");
    assert_eq!(running.rejections.unread(), 1);
}
