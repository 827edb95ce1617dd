//! What the operator tells about itself over HTTP: `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// How a pass over one cluster ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PassLabels {
    result: &'static str,
}

/// Figures of the controller.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    passes: Family<PassLabels, Counter>,
    pass_seconds: Histogram,
    topics_copied: Counter,
    leading: Gauge,
    ready: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rocketmq_operator");
        let passes = Family::<PassLabels, Counter>::default();
        let pass_seconds = Histogram::new([0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]);
        let topics_copied = Counter::default();
        let leading = Gauge::default();
        registry.register("reconciles", "Passes over a cluster, by how they ended", passes.clone());
        registry.register("reconcile_duration_seconds", "How long a pass took", pass_seconds.clone());
        registry.register(
            "topics_copied",
            "Topics and consumer groups created on new broker groups",
            topics_copied.clone(),
        );
        registry.register("leading", "1 where this process is the one that acts", leading.clone());
        Self { registry, passes, pass_seconds, topics_copied, leading, ready: AtomicBool::new(false) }
    }
}

impl Metrics {
    /// Counts a pass.
    pub fn passed(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { "success" } else { "error" };
        self.passes.get_or_create(&PassLabels { result }).inc();
        self.pass_seconds.observe(took.as_secs_f64());
    }

    /// Counts topics and groups created on a new broker group.
    pub fn copied(&self, count: usize) {
        self.topics_copied.inc_by(count as u64);
    }

    /// Says whether this process leads.
    pub fn lead(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Says that the API server has been reached. A standby is ready too, or a rollout would wait for it for ever.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

/// Takes the port, so that a port that is taken is an error at the start.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(encode))
        .with_state(metrics);
    axum::serve(listener, router).await.context("the HTTP server has ended")
}

async fn readyz(State(metrics): State<Arc<Metrics>>) -> (StatusCode, &'static str) {
    if metrics.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server has not been reached yet")
    }
}

async fn encode(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let mut body = String::new();
    match text::encode(&mut body, &metrics.registry) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            body,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
