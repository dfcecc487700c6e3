//! A collector that speaks OTLP over gRPC.

use std::{error::Error, time::Duration};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use tonic::{
    Code, Request, Status,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use super::{Collector, ExportError};

/// How a collector is reached.
#[derive(Debug)]
pub struct GrpcSettings {
    /// Scheme, host and port.
    pub endpoint: Uri,
    /// Sent with each request.
    pub headers: HeaderMap,
    /// Authorities in PEM in place of the system's.
    pub ca: Option<Vec<u8>>,
    /// Longest wait for a connection.
    pub timeout: Duration,
}

/// A collector that speaks OTLP over gRPC.
#[derive(Clone, Debug)]
pub struct GrpcCollector {
    client: TraceServiceClient<Channel>,
    metadata: MetadataMap,
}

impl GrpcCollector {
    /// Connects when there is something to send.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(settings: GrpcSettings) -> Result<Self, String> {
        let GrpcSettings { endpoint, headers, ca, timeout } = settings;
        let is_https = endpoint.scheme_str() == Some("https");
        let mut channel = Endpoint::from(endpoint)
            .user_agent(concat!("jobwatch/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| error.to_string())?
            .connect_timeout(timeout);
        if is_https {
            let tls = match ca {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            channel = channel.tls_config(tls).map_err(|error| reason(&error))?;
        }
        let client = TraceServiceClient::new(channel.connect_lazy());
        Ok(Self { client, metadata: MetadataMap::from_headers(headers) })
    }
}

impl Collector for GrpcCollector {
    fn export<'a>(
        &'a self,
        request: &'a ExportTraceServiceRequest,
    ) -> BoxFuture<'a, Result<u64, ExportError>> {
        Box::pin(async move {
            let mut client = self.client.clone();
            let mut request = Request::new(request.clone());
            *request.metadata_mut() = self.metadata.clone();
            let response = client.export(request).await.map_err(|status| error(&status))?;
            let refused = response.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
            Ok(refused.max(0).unsigned_abs())
        })
    }
}

/// <https://opentelemetry.io/docs/specs/otlp/#failures>
fn error(status: &Status) -> ExportError {
    let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let is_temporary = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => retry_after.is_some(),
        // The HTTP/2 connection has broken.
        Code::Unknown | Code::Internal => status.source().is_some(),
        _ => false,
    };
    let why = match status.source() {
        Some(source) => format!("no connection: {}", reason(source)),
        None => format!("the collector answered with gRPC code {:?}", status.code()),
    };
    ExportError { why, is_temporary, retry_after }
}

/// The innermost cause, which names no URL.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_says_whether_a_request_is_sent_again() {
        for (code, is_temporary) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::ResourceExhausted, false),
            (Code::InvalidArgument, false),
            (Code::Unauthenticated, false),
            (Code::Unimplemented, false),
        ] {
            let error = error(&Status::new(code, "hush"));
            assert_eq!(error.is_temporary, is_temporary, "{code:?}");
            assert!(!error.why.contains("hush"), "{}", error.why);
        }
    }
}
