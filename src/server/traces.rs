//! Starts the export of traces as configured.

use std::{fs, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::{StatusCode, header};
use prost::Message;
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    config::{Config, Network, Protocol, Traces},
    telemetry::traces::{
        Collector, ExportError, ExportTraceServiceRequest, ExportTraceServiceResponse, Exporter,
        GrpcCollector, GrpcSettings, Resource, Sampling, Tracer,
    },
    transport::{CollectorClient, LONGEST_RETRY_AFTER},
};

/// Why traces can't be exported.
#[derive(Debug, Error)]
#[error("{key} can't be used: {why}")]
pub struct TracesError {
    key: &'static str,
    why: String,
}

/// Starts the export. It connects when there is something to send.
pub(super) fn start(traces: &Traces) -> Result<(Tracer, Exporter), TracesError> {
    let Traces { sample_ratio, parent_based, propagate, service_name, attributes, timeout, .. } = traces;
    let sampling = Sampling { ratio: *sample_ratio, parent_based: *parent_based, propagate: *propagate };
    let attributes = attributes.iter().map(|(name, value)| (name.clone(), value.clone()));
    let resource = Resource::new(service_name, attributes);
    Ok(Exporter::start(sampling, resource, *timeout, collector(traces)?))
}

/// Sets up what spans are sent with.
pub(super) fn collector(traces: &Traces) -> Result<Arc<dyn Collector>, TracesError> {
    let Traces { endpoint, protocol, headers, ca, proxies, timeout, .. } = traces;
    let (headers, timeout) = (headers.clone(), *timeout);
    Ok(match protocol {
        Protocol::Grpc => {
            let pem = ca.as_ref().map(fs::read).transpose();
            let ca = pem.map_err(|error| TracesError { key: "traces.ca", why: error.to_string() })?;
            let settings = GrpcSettings { endpoint: endpoint.join(""), headers, ca, timeout };
            let collector = GrpcCollector::new(settings);
            Arc::new(collector.map_err(|why| TracesError { key: "traces.endpoint", why })?)
        }
        Protocol::Http => {
            let network = Network { proxy: proxies.clone(), ca: ca.clone(), headers, ..Network::default() };
            let client = CollectorClient::new(endpoint, &network, timeout);
            let error = |error: crate::transport::SetupError| TracesError {
                key: if ca.is_some() { "traces.ca" } else { "traces.endpoint" },
                why: error.to_string(),
            };
            Arc::new(HttpCollector(client.map_err(error)?))
        }
    })
}

/// Sets the export of traces up, and sends a request without spans if `connects`. The error
/// is why it can't be used. `None` where traces are off.
pub async fn check_traces(config: &Config, connects: bool) -> Option<Result<(), String>> {
    let traces = config.traces.as_ref()?;
    let check = async {
        let collector = collector(traces).map_err(|error| error.to_string())?;
        if connects {
            let request = ExportTraceServiceRequest::default();
            let exported = timeout(traces.timeout, collector.export(&request)).await;
            exported
                .map_err(|_| format!("no response within {:?}", traces.timeout))?
                .map_err(|error| error.why)?;
        }
        Ok(())
    };
    Some(check.await)
}

/// A collector that speaks OTLP over HTTP.
struct HttpCollector(CollectorClient);

impl Collector for HttpCollector {
    fn export<'a>(
        &'a self,
        request: &'a ExportTraceServiceRequest,
    ) -> BoxFuture<'a, Result<u64, ExportError>> {
        Box::pin(async move {
            let response =
                self.0.post(request.encode_to_vec().into()).await.map_err(ExportError::temporary)?;
            let status = response.status();
            if !status.is_success() {
                return Err(refusal(status, response.headers()));
            }
            // What it says beside the status is worth no failure.
            let answer = ExportTraceServiceResponse::decode(response.into_body()).unwrap_or_default();
            Ok(answer.partial_success.map_or(0, |partial| partial.rejected_spans).max(0).unsigned_abs())
        })
    }
}

/// <https://opentelemetry.io/docs/specs/otlp/#failures-1>
fn refusal(status: StatusCode, headers: &http::HeaderMap) -> ExportError {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
    ExportError {
        why: format!("the collector answered with HTTP {}", status.as_u16()),
        is_temporary: matches!(status.as_u16(), 429 | 502 | 503 | 504),
        retry_after: seconds.map(Duration::from_secs).map(|after| after.min(LONGEST_RETRY_AFTER)),
    }
}
