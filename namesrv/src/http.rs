//! The HTTP port: is the process alive, may it be asked, and how often its limits refused.
//!
//! May only read.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use rocketmq_remoting::Rejections;

use crate::config::NamesrvConfig;

/// What `/metrics` answers with, the same as of brokers.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes the port (`bindAddress:httpPort`), where one is set.
///
/// # Errors
/// The port is taken.
pub(crate) fn bind(config: &NamesrvConfig) -> anyhow::Result<Option<TcpListener>> {
    if config.http_port == 0 {
        return Ok(None);
    }
    let address = SocketAddr::new(config.bind_address, config.http_port);
    let listener = TcpListener::bind(address).with_context(|| format!("listen for HTTP on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// Answers for ever; without a port there is nothing to answer.
pub(crate) async fn serve(listener: Option<TcpListener>, rejections: Arc<Rejections>) {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        // Routes come from brokers, and whoever asks too early asks again.
        .route("/readyz", get(async || "ok\n"))
        .route("/metrics", get(scrape))
        .with_state(rejections);
    if let Some(listener) = listener {
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, routes).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!("the HTTP port failed: {error}");
        }
    }
    std::future::pending::<()>().await;
}

async fn scrape(State(rejections): State<Arc<Rejections>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text(&rejections))
}

/// All metrics in the text form of `OpenMetrics`. Names of limits are those of the broker's metric, and docs/overload.md tells of them.
fn text(rejections: &Rejections) -> String {
    use std::fmt::Write as _;
    const NAME: &str = "rocketmq_namesrv_rejected_requests";
    let mut text = format!("# HELP {NAME} Refused because a limit was met.\n# TYPE {NAME} counter\n");
    for (limit, count) in [
        ("serverConnectionsMax", rejections.connections()),
        ("serverConnectionRequestsMax", rejections.requests()),
        ("frameMaxLength", rejections.frames()),
        ("serverChannelMaxIdleTimeSeconds", rejections.unread()),
    ] {
        // A string takes everything.
        let _ = writeln!(text, "{NAME}_total{{limit=\"{limit}\"}} {count}");
    }
    text + "# EOF\n"
}
