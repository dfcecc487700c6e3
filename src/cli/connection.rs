//! The connection to the gateway: its options, TLS, and the caller's token.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Request, Status,
    codec::CompressionEncoding,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    exit::Failure,
    first_bytes::{self, root_cause},
};
use crate::proto::v1::job_status_service_client::JobStatusServiceClient;

/// A connected client.
pub(super) type Client = JobStatusServiceClient<InterceptedService<Channel, Authorization>>;

/// Sends the caller's token, if it has one.
#[derive(Clone, Debug)]
pub(super) struct Authorization(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A batch of 1000 jobs may hold much more than gRPC's default of 4 MiB.
const MAX_MESSAGE: usize = 1 << 30;

/// How to reach the gateway.
#[derive(Debug, Default, Args)]
pub(super) struct Connection {
    /// The gateway's address. The default scheme is http://.
    #[arg(long, value_name = "URL", env = "JOBWATCH_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,

    /// PEM file of certificate authorities to trust instead of the system's, for https://.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_CA")]
    ca: Option<PathBuf>,

    /// File that holds the caller's token and nothing else.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// The caller's token. Other users of this machine can read it in the process list, and
    /// the shell keeps it in its history: prefer --token-file, or the variable.
    #[arg(long, value_name = "TOKEN", env = "JOBWATCH_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,

    /// PEM file of the caller's certificate chain, for https://.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_CERT", requires = "key")]
    cert: Option<PathBuf>,

    /// PEM file of that certificate's key.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_KEY", requires = "cert")]
    key: Option<PathBuf>,
}

impl Connection {
    /// To a gateway at this address.
    #[cfg(feature = "demo")]
    pub(super) fn to(address: std::net::SocketAddr) -> Self {
        Self { server: address.to_string(), ..Self::default() }
    }

    /// Connects. The client reconnects by itself later.
    pub(super) async fn open(&self) -> Result<Client, Failure> {
        let authorization = self.authorization(self.endpoint()?.uri())?;
        let channel = self.channel().await?;
        Ok(JobStatusServiceClient::with_interceptor(channel, authorization)
            .max_decoding_message_size(MAX_MESSAGE)
            .accept_compressed(CompressionEncoding::Gzip))
    }

    /// Connects, for any service.
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        let endpoint = self.endpoint()?;
        first_bytes::connect(&endpoint).await.map_err(|error| {
            Failure::Connect(format!("can't reach a gateway at {}: {error}", url(&self.server)))
        })
    }

    /// The token, which is not sent over a network in plain text.
    fn authorization(&self, server: &http::Uri) -> Result<Authorization, Failure> {
        let (text, source) = match (&self.token_file, &self.token) {
            (Some(file), _) => (read("--token-file", file)?, format!("--token-file {}", file.display())),
            (None, Some(token)) => {
                (token.expose_secret().as_bytes().to_vec(), "--token or JOBWATCH_TOKEN".to_owned())
            }
            (None, None) => return Ok(Authorization(None)),
        };
        let token = str::from_utf8(&text).unwrap_or_default().trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::Usage(format!("{source} does not hold a token; write the token alone")));
        }
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if server.scheme_str() != Some("https") && !is_local {
            let why = "the token would travel unencrypted; write an https:// URL for --server";
            return Err(Failure::Usage(format!("{source}: {why}")));
        }
        let mut header: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().expect("graphic ASCII fits a header");
        header.set_sensitive(true);
        Ok(Authorization(Some(header)))
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let url = url(&self.server);
        let usage = |why: &str| Failure::Usage(format!("--server {url} {why}"));
        let endpoint = Endpoint::from_shared(url.clone())
            .ok()
            .filter(|endpoint| {
                let uri = endpoint.uri();
                uri.host().is_some_and(|host| !host.is_empty())
                    && matches!(uri.scheme_str(), Some("http" | "https"))
            })
            .ok_or_else(|| usage("is not a URL; write one such as http://127.0.0.1:50051"))?
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("jobwatch/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| usage(&error.to_string()))?;
        if endpoint.uri().scheme_str() != Some("https") {
            return match (&self.ca, &self.cert) {
                (None, None) => Ok(endpoint),
                (Some(_), _) => Err(usage("is not encrypted, so --ca has no effect; write an https:// URL")),
                (_, Some(_)) => {
                    Err(usage("is not encrypted, so --cert has no effect; write an https:// URL"))
                }
            };
        }
        let tls = match &self.ca {
            None => ClientTlsConfig::new().with_native_roots(),
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca", file)?)),
        };
        let tls = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                tls.identity(Identity::from_pem(read("--cert", cert)?, read("--key", key)?))
            }
            _ => tls,
        };
        endpoint.tls_config(tls).map_err(|error| Failure::Usage(format!("TLS: {}", root_cause(&error))))
    }
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::Usage(format!("{option} {} can't be read: {error}", file.display())))
}

fn url(server: &str) -> String {
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(server: &str) -> Connection {
        Connection { server: server.to_owned(), ..Connection::default() }
    }

    #[test]
    fn address_without_scheme_uses_http() {
        assert_eq!(connection("gateway:50051").endpoint().unwrap().uri(), "http://gateway:50051/");
        assert_eq!(connection("[::1]:50051").endpoint().unwrap().uri(), "http://[::1]:50051/");
    }

    #[test]
    fn invalid_address_is_refused() {
        for server in ["", "ftp://gateway", "http://", "two words"] {
            assert!(matches!(connection(server).endpoint(), Err(Failure::Usage(_))), "{server}");
        }
    }

    #[test]
    fn ca_without_tls_is_refused() {
        let connection = Connection { ca: Some("ca.pem".into()), ..connection("gateway:1") };
        assert!(matches!(connection.endpoint(), Err(Failure::Usage(_))));
    }

    #[tokio::test]
    async fn refused_connection_is_reported_in_one_line() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let Err(Failure::Connect(message)) = connection(&address.to_string()).open().await else { panic!() };
        assert!(
            message.starts_with(&format!("can't reach a gateway at http://{address}: Connection refused"))
        );
    }
}
