//! Asks processes of this machine whether they are ready, as a kubelet does.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a connection to the port opens.
pub(super) async fn tcp(port: u16) -> bool {
    let connect = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    matches!(tokio::time::timeout(TIMEOUT, connect).await, Ok(Ok(_)))
}

/// Whether `GET path` is answered with a status of 200.
pub(super) async fn http(port: u16, path: &str) -> bool {
    matches!(tokio::time::timeout(TIMEOUT, status(port, path)).await, Ok(Ok(200)))
}

async fn status(port: u16, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200` and no more is of interest.
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let code = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..)).unwrap_or_default();
    let code = std::str::from_utf8(code).unwrap_or_default();
    code.parse().map_err(|_| std::io::Error::other("this is not HTTP"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn server(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        assert!(http(server(b"HTTP/1.1 200 OK\r\n\r\n").await, "/readyz").await);
        assert!(http(server(b"HTTP/1.0 200 OK\r\n\r\n").await, "/readyz").await);
        assert!(!http(server(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await, "/readyz").await);
        assert!(!http(server(b"nonsense nonsense").await, "/readyz").await);
        assert!(!http(server(b"short").await, "/readyz").await);
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_not_ready() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(tcp(port).await);
        drop(listener);
        assert!(!tcp(port).await && !http(port, "/readyz").await);
    }
}
