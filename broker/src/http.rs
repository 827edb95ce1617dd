//! The HTTP port: is the process alive, may it be used, and its metrics.
//!
//! It opens before the store, so that a long recovery does not look like a dead process. May only
//! read.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::ha::Replication;
use crate::ha::slave::SlaveStatus;
use crate::metrics;

/// The broker, once its store is open.
pub(crate) type OpenBroker = Arc<OnceLock<Arc<Broker>>>;

/// Takes the port (`bindAddress:httpPort`), where one is set.
///
/// # Errors
/// The port is taken.
pub(crate) async fn bind(config: &BrokerConfig) -> anyhow::Result<Option<TcpListener>> {
    if config.http_port == 0 {
        return Ok(None);
    }
    let ip: IpAddr = config.bind_address.parse().with_context(|| format!("bindAddress={}", config.bind_address))?;
    let address = SocketAddr::new(ip, config.http_port);
    Ok(Some(TcpListener::bind(address).await.with_context(|| format!("listen for HTTP on {address}"))?))
}

/// Answers until `shutdown`.
pub(crate) async fn serve(listener: TcpListener, broker: OpenBroker, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(broker);
    tokio::select! {
        () = shutdown.cancelled() => {}
        served = axum::serve(listener, routes) => {
            if let Err(error) = served {
                tracing::error!("the HTTP port failed: {error}");
            }
        }
    }
}

async fn ready(State(broker): State<OpenBroker>) -> Response {
    let reasons = broker
        .get()
        .map_or_else(|| vec!["the store is being recovered".to_owned()], |broker| Facts::of(broker).reasons_against());
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

async fn scrape(State(broker): State<OpenBroker>) -> Response {
    let Some(broker) = broker.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store is being recovered\n").into_response();
    };
    match metrics::text(broker) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!("metrics cannot be written: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What readiness depends on.
struct Facts {
    name_servers: Option<String>,
    registered: usize,
    /// Why no messages are stored.
    not_writable: Option<String>,
    slave: Option<SlaveFacts>,
}

struct SlaveFacts {
    status: SlaveStatus,
    lag: Option<u64>,
    lag_max: u64,
}

impl Facts {
    fn of(broker: &Broker) -> Self {
        let config = broker.config();
        let slave = match &broker.replication {
            Replication::Master(_) => None,
            Replication::Slave(slave) => {
                Some(SlaveFacts { status: slave.status(), lag: slave.lag(), lag_max: config.slave_ready_lag_max })
            }
        };
        Self {
            name_servers: config.namesrv_addr.clone(),
            registered: broker.registration.registered().len(),
            not_writable: broker.store.writable().err().map(|error| error.to_string()),
            slave,
        }
    }

    /// Why the broker is not ready; nothing where it is.
    fn reasons_against(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(reason) = &self.not_writable {
            reasons.push(format!("no messages are stored: {reason}"));
        }
        if let Some(name_servers) = self.name_servers.as_deref().filter(|_| self.registered == 0) {
            reasons.push(format!("not registered at any name server of {name_servers}"));
        }
        if let Some(slave) = &self.slave {
            reasons.extend(slave.reason_against());
        }
        reasons
    }
}

impl SlaveFacts {
    /// A master that was reached once and is away now is no reason: a slave is there for that.
    fn reason_against(&self) -> Option<String> {
        if let Some(divergence) = &self.status.divergence {
            return Some(divergence.clone());
        }
        match self.lag {
            None => Some("the master has not been reached yet".to_owned()),
            Some(lag) if lag > self.lag_max => {
                Some(format!("{lag} bytes behind the master, slaveReadyLagMax={}", self.lag_max))
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master() -> Facts {
        Facts { name_servers: Some("ns:9876".to_owned()), registered: 1, not_writable: None, slave: None }
    }

    fn slave(status: SlaveStatus, lag: Option<u64>) -> Facts {
        Facts { slave: Some(SlaveFacts { status, lag, lag_max: 100 }), ..master() }
    }

    #[test]
    fn a_master_needs_one_name_server_where_any_is_configured() {
        assert!(master().reasons_against().is_empty());
        let lonely = Facts { registered: 0, ..master() };
        assert_eq!(lonely.reasons_against(), ["not registered at any name server of ns:9876"]);
        let alone = Facts { registered: 0, name_servers: None, ..master() };
        assert!(alone.reasons_against().is_empty());
        let full = Facts { not_writable: Some("disk full".to_owned()), ..lonely };
        assert_eq!(full.reasons_against().len(), 2, "every reason is named");
    }

    #[test]
    fn a_slave_needs_to_be_near_its_master() {
        assert!(slave(SlaveStatus::default(), Some(100)).reasons_against().is_empty());
        let far = slave(SlaveStatus::default(), Some(101)).reasons_against();
        assert_eq!(far, ["101 bytes behind the master, slaveReadyLagMax=100"]);
        let new = slave(SlaveStatus::default(), None).reasons_against();
        assert_eq!(new, ["the master has not been reached yet"]);
        let status = SlaveStatus { divergence: Some("not one log".to_owned()), ..SlaveStatus::default() };
        assert_eq!(slave(status, Some(0)).reasons_against(), ["not one log"]);
    }

    #[tokio::test]
    async fn before_the_store_is_open_the_process_lives_but_is_not_ready() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, OpenBroker::default(), shutdown.clone()));
        let ask = async |path: &str| {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        assert!(ask("/livez").await.starts_with("HTTP/1.1 200"));
        let ready = ask("/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("the store is being recovered\n"), "{ready}");
        assert!(ask("/metrics").await.starts_with("HTTP/1.1 503"));
        shutdown.cancel();
        served.await.unwrap();
    }
}
