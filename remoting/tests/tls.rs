//! TLS beside plain connections on one port: which connection is served in which mode, whose certificate
//! is believed, and what becomes of connections that begin a handshake and do not end it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rocketmq_remoting::tls::{ClientTls, ServerTls, TlsEnvironment, TlsSettings};
use rocketmq_remoting::{
    Answer, Client, ClientConfig, Command as Request, Peer, RemotingError, RequestCode, Server, ServerConfig, Service,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
/// Answers with the request's body.
const ECHO: RequestCode = RequestCode(1);
/// Answers after a moment.
const SLOW: RequestCode = RequestCode(2);

struct Echo;

impl Service for Echo {
    fn call(&self, _: &Arc<Peer>, request: Request) -> Answer {
        match request.request_code() {
            SLOW => Answer::later(async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Request::ok()
            }),
            _ => Request::ok().with_body(request.body).into(),
        }
    }
}

struct Running {
    address: String,
    tls: Option<Arc<ServerTls>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn settings(pairs: &[(&str, &str)]) -> TlsSettings {
    let mut settings = TlsSettings::default();
    for (key, value) in pairs {
        settings.set(key, value).unwrap();
    }
    settings
}

fn serve_with(pairs: &[(&str, &str)], change: impl FnOnce(&mut ServerConfig)) -> Running {
    let mut config = ServerConfig::new("127.0.0.1:0".parse().unwrap());
    config.tls = ServerTls::open(&settings(pairs)).unwrap();
    change(&mut config);
    let tls = config.tls.clone();
    let server = Server::bind(config).unwrap();
    let address = server.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(Arc::new(Echo), shutdown.clone()));
    Running { address, tls, shutdown, task }
}

fn serve(pairs: &[(&str, &str)]) -> Running {
    serve_with(pairs, |_| {})
}

/// A client with `tls.enable`.
fn client(pairs: &[(&str, &str)]) -> Client {
    let tls = ClientTls::open(&settings(&[&[("tls.enable", "true")], pairs].concat())).unwrap();
    assert!(tls.is_some());
    Client::new(ClientConfig { tls, connect_timeout: PATIENCE, ..ClientConfig::default() })
}

async fn echo(client: &Client, address: &str) -> Result<(), RemotingError> {
    let answer = client.invoke(address, Request::request(ECHO).with_body("hello"), PATIENCE).await?;
    assert_eq!(&answer.body.into_bytes()[..], b"hello");
    Ok(())
}

/// Whether the other side ends the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // An end and a reset are the same to a client.
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

/// An authority with certificates of its own making, in a directory.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Writes `name.pem` and `name.key`.
    fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        // Neither the address nor the name that is dialled: what counts is who issued it.
        let params = CertificateParams::new([format!("{name}.example")]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Keys and certificates as OpenSSL writes them, all for `rsa.pem` or `ec.pem`; the password is `rocketmq`.
struct OpenSsl(TempDir);

impl OpenSsl {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for line in [
            "req -x509 -newkey rsa:2048 -nodes -keyout pkcs8.key -out rsa.pem -days 30 -subj /CN=server",
            "pkcs8 -topk8 -in pkcs8.key -out pkcs8-aes256.key -passout pass:rocketmq",
            "pkcs8 -topk8 -v2 des3 -v2prf hmacWithSHA1 -in pkcs8.key -out pkcs8-3des-sha1.key -passout pass:rocketmq",
            "rsa -in pkcs8.key -traditional -out pkcs1.key",
            "rsa -in pkcs8.key -traditional -aes128 -passout pass:rocketmq -out pkcs1-encrypted.key",
            "ecparam -name prime256v1 -genkey -noout -out sec1.key",
            "req -x509 -key sec1.key -out ec.pem -days 30 -subj /CN=server",
        ] {
            let mut command = Command::new("openssl");
            let output = command.args(line.split(' ')).current_dir(files.0.path()).output().unwrap();
            assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[tokio::test]
async fn the_mode_decides_which_connections_are_served() {
    for (mode, plain, tls) in [("disabled", true, false), ("permissive", true, true), ("enforcing", false, true)] {
        let running = serve(&[("tls.server.mode", mode)]);
        assert_eq!(echo(&Client::default(), &running.address).await.is_ok(), plain, "plain, {mode}");
        assert_eq!(echo(&client(&[]), &running.address).await.is_ok(), tls, "TLS, {mode}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_closed_at_once() {
    for (mode, first) in [("disabled", 0x16), ("enforcing", 0)] {
        let running = serve(&[("tls.server.mode", mode)]);
        let mut stream = TcpStream::connect(&running.address).await.unwrap();
        stream.write_all(&[first]).await.unwrap();
        assert!(is_closed(&mut stream).await, "{mode}");
    }
}

#[tokio::test]
async fn both_sorts_are_served_at_the_same_time() {
    let running = serve(&[]);
    let exchanges = (0..200).map(|number| {
        let address = running.address.clone();
        tokio::spawn(async move {
            let client = if number % 2 == 0 { client(&[]) } else { Client::default() };
            for _ in 0..5 {
                echo(&client, &address).await.unwrap();
            }
        })
    });
    futures::future::try_join_all(exchanges).await.unwrap();
}

/// More than the sockets and the TLS layer hold.
#[tokio::test]
async fn big_bodies_arrive_whole() {
    let running = serve(&[]);
    let exchanges = (0..8u8).map(|number| {
        let (client, address) = (client(&[]), running.address.clone());
        tokio::spawn(async move {
            let body: Vec<u8> = (0..12_000_000_usize).map(|at| (at / 7) as u8 ^ number).collect();
            let request = Request::request(ECHO).with_body(body.clone());
            let answer = client.invoke(&address, request, PATIENCE).await.unwrap();
            assert!(answer.body.into_bytes() == body, "body {number} is damaged");
        })
    });
    futures::future::try_join_all(exchanges).await.unwrap();
}

#[tokio::test]
async fn a_server_that_shuts_down_gives_the_answers_that_it_owes() {
    let running = serve(&[]);
    let client = client(&[]);
    echo(&client, &running.address).await.unwrap();
    // It has been said before the shutdown: requests of one connection are read in order.
    let peer = client.peer(&running.address).await.unwrap();
    let slow = peer.request(Request::request(SLOW), PATIENCE);
    let (slow, ()) = tokio::join!(slow, async {
        echo(&client, &running.address).await.unwrap();
        running.shutdown.cancel();
    });
    slow.unwrap();
    tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn handshakes_that_go_nowhere_are_ended_and_disturb_nobody() {
    let running = serve_with(&[], |config| config.limits.handshake = Duration::from_secs(2));
    // The head of a record of 512 bytes, and the beginning of a hello.
    let half_a_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut garbage = vec![0x16];
    garbage.extend((0..400).map(|at: u32| (at * 37 + 11) as u8));
    for bytes in [&half_a_hello[..], &half_a_hello[..1], &garbage] {
        let mut streams = Vec::new();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(&running.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            streams.push(stream);
        }
        echo(&client(&[]), &running.address).await.unwrap();
        echo(&Client::default(), &running.address).await.unwrap();
        for mut stream in streams {
            assert!(is_closed(&mut stream).await, "{bytes:?}");
        }
    }
}

#[tokio::test]
async fn a_silent_connection_is_ended_after_the_idle_time() {
    let running = serve_with(&[], |config| config.limits.idle = Duration::from_secs(1));
    let mut silent = TcpStream::connect(&running.address).await.unwrap();
    assert!(is_closed(&mut silent).await);
    // And one does not hold up the server's end.
    let _silent = TcpStream::connect(&running.address).await.unwrap();
    echo(&Client::default(), &running.address).await.unwrap();
    running.shutdown.cancel();
    tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_plain_server_is_an_error_to_a_tls_client_that_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\0\0\0\0 not TLS at all").await.unwrap();
        let _ = stream.read(&mut [0; 64]).await;
    });
    let error = echo(&client(&[]), &address).await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("TLS handshake"), "{error}");
}

#[tokio::test]
async fn a_client_believes_whom_it_is_told_to() {
    let (ours, other) = (Authority::new(), Authority::new());
    ours.issue("server");
    let certificate =
        [("tls.server.certPath", &*ours.path("server.pem")), ("tls.server.keyPath", &ours.path("server.key"))];
    let running = serve(&certificate);
    let believing = |path: &str| client(&[("tls.client.authServer", "true"), ("tls.client.trustCertPath", path)]);
    echo(&believing(&ours.path("ca.pem")), &running.address).await.unwrap();
    echo(&believing(&ours.path("server.pem")), &running.address).await.unwrap();
    let error = echo(&believing(&other.path("ca.pem")), &running.address).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    echo(&client(&[]), &running.address).await.unwrap();
    // The certificate that is made where none is set convinces nobody who asks.
    assert!(echo(&believing(&ours.path("ca.pem")), &serve(&[]).address).await.is_err());
}

#[tokio::test]
async fn a_server_asks_clients_for_certificates() {
    let (ours, other) = (Authority::new(), Authority::new());
    for (authority, name) in [(&ours, "server"), (&ours, "client"), (&other, "stranger")] {
        authority.issue(name);
    }
    let paths = [ours.path("server.pem"), ours.path("server.key"), ours.path("ca.pem")];
    let (known, stranger) = (
        [("tls.client.certPath", ours.path("client.pem")), ("tls.client.keyPath", ours.path("client.key"))],
        [("tls.client.certPath", other.path("stranger.pem")), ("tls.client.keyPath", other.path("stranger.key"))],
    );
    let with = |pairs: &[(&str, String); 2]| client(&pairs.each_ref().map(|(key, value)| (*key, value.as_str())));
    // Who is asked, whether what they show is looked at; then: nothing, a known one, a stranger's.
    for (need, auth, nothing, known_one, a_strangers) in [
        ("none", "true", true, true, true),
        ("optional", "true", true, true, false),
        ("require", "true", false, true, false),
        ("optional", "false", true, true, true),
        ("require", "false", false, true, true),
    ] {
        let running = serve(&[
            ("tls.server.mode", "enforcing"),
            ("tls.server.certPath", &paths[0]),
            ("tls.server.keyPath", &paths[1]),
            ("tls.server.trustCertPath", &paths[2]),
            ("tls.server.need.client.auth", need),
            ("tls.server.authClient", auth),
        ]);
        let case = format!("need {need}, auth {auth}");
        let without = echo(&client(&[]), &running.address).await;
        assert_eq!(without.is_ok(), nothing, "{case}: nothing");
        assert_eq!(echo(&with(&known), &running.address).await.is_ok(), known_one, "{case}: known");
        assert_eq!(echo(&with(&stranger), &running.address).await.is_ok(), a_strangers, "{case}: stranger");
    }
}

#[tokio::test]
async fn keys_are_read_in_every_form_that_openssl_writes() {
    let files = OpenSsl::new();
    for (certificate, key) in [
        ("rsa.pem", "pkcs8.key"),
        ("rsa.pem", "pkcs8-aes256.key"),
        ("rsa.pem", "pkcs8-3des-sha1.key"),
        ("rsa.pem", "pkcs1.key"),
        ("ec.pem", "sec1.key"),
    ] {
        let certificate = files.path(certificate);
        let running = serve(&[
            ("tls.server.certPath", &certificate),
            ("tls.server.keyPath", &files.path(key)),
            ("tls.server.keyPassword", "rocketmq"),
        ]);
        let client = client(&[("tls.client.authServer", "true"), ("tls.client.trustCertPath", &certificate)]);
        echo(&client, &running.address).await.unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let openssl = OpenSsl::new();
    let error = |pairs: &[(&str, &str)]| ServerTls::open(&settings(pairs)).unwrap_err().to_string();
    let files = |certificate: &str, key: &str, password: &str| {
        error(&[
            ("tls.server.certPath", &openssl.path(certificate)),
            ("tls.server.keyPath", &openssl.path(key)),
            ("tls.server.keyPassword", password),
        ])
    };
    let text = files("rsa.pem", "none.key", "");
    assert!(text.starts_with("tls.server.keyPath=") && text.contains("cannot be read"), "{text}");
    let text = files("none.pem", "pkcs8.key", "");
    assert!(text.starts_with("tls.server.certPath=") && text.contains("cannot be read"), "{text}");
    let text = files("rsa.pem", "sec1.key", "");
    assert!(text.contains("sec1.key: is not the private key of the certificate"), "{text}");
    let text = files("pkcs8.key", "pkcs8.key", "");
    assert!(text.contains("holds no certificate"), "{text}");
    let text = files("rsa.pem", "rsa.pem", "");
    assert!(text.contains("holds no private key"), "{text}");
    let text = files("rsa.pem", "pkcs8-aes256.key", "");
    assert!(text.contains("is encrypted, and tls.server.keyPassword is not set"), "{text}");
    let text = files("rsa.pem", "pkcs8-aes256.key", "wrong");
    assert!(text.contains("cannot be decrypted with tls.server.keyPassword") && !text.contains("wrong"), "{text}");
    let text = files("rsa.pem", "pkcs1-encrypted.key", "rocketmq");
    assert!(text.contains("openssl pkcs8 -topk8"), "{text}");
    let text = error(&[("tls.server.certPath", "/c.pem")]);
    assert_eq!(text, "tls.server.certPath=/c.pem needs tls.server.keyPath");
    let text = error(&[("tls.test.mode.enable", "false")]);
    assert_eq!(
        text,
        "tls.test.mode.enable=false needs tls.server.certPath and tls.server.keyPath, or tls.server.mode=disabled"
    );
    let text = error(&[("tls.server.authClient", "true"), ("tls.server.need.client.auth", "require")]);
    assert_eq!(text, "tls.server.authClient=true needs tls.server.trustCertPath");
    let text = ClientTls::open(&settings(&[("tls.enable", "true"), ("tls.client.authServer", "true")]));
    assert_eq!(text.unwrap_err().to_string(), "tls.client.authServer=true needs tls.client.trustCertPath");
    // What is not used is not looked at.
    assert!(
        ServerTls::open(&settings(&[("tls.server.mode", "disabled"), ("tls.server.certPath", "/c")]))
            .unwrap()
            .is_none()
    );
    assert!(ClientTls::open(&settings(&[("tls.client.certPath", "/c")])).unwrap().is_none());
    assert!(TlsSettings::default().complete(&TlsEnvironment::default()).is_ok());
}

/// As Kubernetes changes a mounted secret: a symbolic link of the directory is swapped.
#[tokio::test]
async fn new_certificates_are_taken_over() {
    let (old, new) = (Authority::new(), Authority::new());
    old.issue("tls");
    new.issue("tls");
    let mount = tempfile::tempdir().unwrap();
    let swap = |to: &Path| {
        std::os::unix::fs::symlink(to, mount.path().join("..data_tmp")).unwrap();
        std::fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    };
    swap(old.directory.path());
    for name in ["tls.pem", "tls.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(name), mount.path().join(name)).unwrap();
    }
    let path = |name: &str| mount.path().join(name).display().to_string();
    let running = serve(&[("tls.server.certPath", &path("tls.pem")), ("tls.server.keyPath", &path("tls.key"))]);
    tokio::spawn(Arc::clone(running.tls.as_ref().unwrap()).keep_current(running.shutdown.clone()));
    let believing = |authority: &Authority| {
        client(&[("tls.client.authServer", "true"), ("tls.client.trustCertPath", &authority.path("ca.pem"))])
    };
    let before = believing(&old);
    echo(&before, &running.address).await.unwrap();

    swap(new.directory.path());
    let taken_over = async {
        while echo(&believing(&new), &running.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken_over).await.expect("the new certificate is taken over");
    echo(&before, &running.address).await.expect("connections that there were go on");
    assert!(echo(&believing(&old), &running.address).await.is_err(), "the old certificate is gone");
}
