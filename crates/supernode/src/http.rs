//! What answers beside the peers' sessions.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::{mpsc, oneshot};

use crate::{driver::Ask, metrics::Metrics};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Operator {
    metrics: Metrics,
    asks: mpsc::Sender<Ask>,
}

/// `/healthz`, `/metrics`, and a hint for everything else.
pub(crate) fn router(metrics: Metrics, asks: mpsc::Sender<Ask>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(figures))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "not found: try /healthz or /metrics\n",
            )
        })
        .with_state(Operator { metrics, asks })
}

async fn figures(State(operator): State<Operator>) -> Response {
    let (ask, answer) = oneshot::channel();
    // Both fail only while the supernode stops.
    if operator.asks.send(ask).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match answer.await {
        Ok(stats) => {
            let text = operator.metrics.text(&stats);
            ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
