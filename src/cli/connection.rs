//! The connection to the gateway: its options, TLS, and the caller's token.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    ArgMatches, Args, Command, FromArgMatches,
    builder::{OsStringValueParser, TypedValueParser},
};
use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{
    Request, Status,
    codec::CompressionEncoding,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{
    address::Address, exit::Failure, first_bytes::Connector, tls, tls_fault::Used, variables::Variables,
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
#[derive(Debug, Args)]
struct Options {
    /// The gateway's address. The default scheme is http://.
    #[arg(long, value_name = "URL", env = "JOBWATCH_SERVER", default_value = DEFAULT)]
    server: String,

    /// PEM file of certificate authorities to trust instead of the system's, for https://.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_CA", value_parser = any_path())]
    ca: Option<PathBuf>,

    /// File that holds the caller's token and nothing else. It takes precedence over --token.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_TOKEN_FILE", value_parser = any_path())]
    token_file: Option<PathBuf>,

    /// The caller's token. Other users of this machine can read it in the process list, and
    /// the shell keeps it in its history: prefer --token-file, or the variable.
    #[arg(long, value_name = "TOKEN", env = "JOBWATCH_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,

    /// PEM file of the caller's certificate chain, for https://. Needs --key.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_CERT", value_parser = any_path())]
    cert: Option<PathBuf>,

    /// PEM file of that certificate's key.
    #[arg(long, value_name = "FILE", env = "JOBWATCH_KEY", value_parser = any_path())]
    key: Option<PathBuf>,
}

const DEFAULT: &str = "http://127.0.0.1:50051";

/// A path, also an empty one: its message names the variable that it comes from.
fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Default for Options {
    fn default() -> Self {
        Self { server: DEFAULT.to_owned(), ca: None, token_file: None, token: None, cert: None, key: None }
    }
}

/// How to reach the gateway.
#[derive(Debug, Default)]
pub(super) struct Connection {
    options: Options,
    variables: Variables,
}

impl FromArgMatches for Connection {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let variables = Variables::of(matches);
        Ok(Self { options: Options::from_arg_matches_mut(matches)?, variables })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Connection {
    fn augment_args(command: Command) -> Command {
        Options::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Options::augment_args_for_update(command)
    }
}

impl Connection {
    /// To a gateway at this address.
    #[cfg(feature = "demo")]
    pub(super) fn to(address: std::net::SocketAddr) -> Self {
        let options = Options { server: address.to_string(), ..Options::default() };
        Self { options, variables: Variables::default() }
    }

    /// Connects. The client reconnects by itself later.
    pub(super) async fn open(&self) -> Result<Client, Failure> {
        let authorization = self.authorization(&self.address()?)?;
        let channel = self.channel().await?;
        Ok(JobStatusServiceClient::with_interceptor(channel, authorization)
            .max_decoding_message_size(MAX_MESSAGE)
            .accept_compressed(CompressionEncoding::Gzip))
    }

    /// Connects, for any service.
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        let address = self.address()?;
        let connector = self.connector(&address)?;
        connector
            .connect(&self.endpoint(&address)?)
            .await
            .map_err(|error| Failure::Connect(format!("can't reach a gateway at {address}: {error}")))
    }

    /// The gateway's address, for messages.
    pub(super) fn server(&self) -> String {
        self.address().map_or_else(|_| self.options.server.clone(), |address| address.to_string())
    }

    fn address(&self) -> Result<Address, Failure> {
        let option = self.variables.name("server");
        if self.options.server.is_empty() {
            let why = "is empty; write a URL such as http://127.0.0.1:50051, or";
            return Err(Failure::Usage(format!("{option} {why} {}", self.variables.omit("server"))));
        }
        Address::parse(&self.options.server).map_err(|why| Failure::Usage(format!("{option} {why}")))
    }

    /// The files that are set, each with its option as the user wrote it.
    fn file<'a>(&self, name: &'a str, file: Option<&'a PathBuf>) -> Result<Option<NamedFile<'a>>, Failure> {
        let Some(path) = file else { return Ok(None) };
        let option = self.variables.name(name);
        if path.as_os_str().is_empty() {
            return Err(Failure::Usage(format!(
                "{option} is empty; write the path of a file, or {}",
                self.variables.omit(name)
            )));
        }
        Ok(Some(NamedFile { option, path }))
    }

    /// The token, which is not sent over a network in plain text.
    fn authorization(&self, server: &Address) -> Result<Authorization, Failure> {
        let file = self.file("token_file", self.options.token_file.as_ref())?;
        let (text, source, id) = match (&file, &self.options.token) {
            (Some(file), _) => {
                (file.read()?, format!("{} {}", file.option, file.path.display()), "token_file")
            }
            (None, Some(token)) => {
                (token.expose_secret().as_bytes().to_vec(), self.variables.name("token"), "token")
            }
            (None, None) => return Ok(Authorization(None)),
        };
        let token = str::from_utf8(&text).unwrap_or_default().trim();
        if text.trim_ascii().is_empty() {
            return Err(Failure::Usage(format!(
                "{source} is empty; write the token, or {}",
                self.variables.omit(id)
            )));
        }
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = "does not hold a token, which has no spaces, line breaks or other letters than ASCII; \
                       write the token alone";
            return Err(Failure::Usage(format!("{source} {why}")));
        }
        if !server.is_tls && !server.is_loopback() {
            let option = self.variables.name("server");
            let why = format!("the token would travel unencrypted; write an https:// URL for {option}");
            return Err(Failure::Usage(format!("{source}: {why}")));
        }
        let mut header: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().expect("graphic ASCII fits a header");
        header.set_sensitive(true);
        Ok(Authorization(Some(header)))
    }

    /// TLS does not come from tonic, so that its faults can be explained.
    fn endpoint(&self, address: &Address) -> Result<Endpoint, Failure> {
        let usage = |error: tonic::transport::Error| {
            Failure::Usage(format!("{} {address}: {error}", self.variables.name("server")))
        };
        let endpoint = Endpoint::from_shared(address.plain()).map_err(usage)?;
        endpoint
            .origin(address.uri.clone())
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("jobwatch/", env!("CARGO_PKG_VERSION")))
            .map_err(usage)
    }

    fn connector(&self, address: &Address) -> Result<Connector, Failure> {
        let options = &self.options;
        let ca = self.file("ca", options.ca.as_ref())?;
        let cert = self.file("cert", options.cert.as_ref())?;
        let key = self.file("key", options.key.as_ref())?;
        let server = self.variables.name("server");
        let set = [("ca", &ca), ("cert", &cert), ("key", &key)];
        let set = set.into_iter().find_map(|(id, file)| file.as_ref().map(|file| (id, &file.option)));
        if let Some((id, option)) = set.filter(|_| !address.is_tls) {
            let omit = self.variables.omit(id);
            let why =
                format!("is not encrypted, so {option} has no effect; write an https:// URL, or {omit}");
            return Err(Failure::Usage(format!("{server} {address} {why}")));
        }
        let identity = match (&cert, &key) {
            (Some(cert), Some(key)) => Some((cert.named(), key.named())),
            (None, None) => None,
            (Some(NamedFile { option, .. }), None) => {
                return Err(Failure::Usage(format!(
                    "{option} is set without its key; write --key FILE, too"
                )));
            }
            (None, Some(NamedFile { option, .. })) => {
                return Err(Failure::Usage(format!(
                    "{option} is set without its certificate; write --cert FILE, too"
                )));
            }
        };
        let tls = if address.is_tls {
            let connector =
                tls::connector(ca.as_ref().map(NamedFile::named), identity).map_err(Failure::Usage)?;
            let name = ServerName::try_from(address.host().to_owned())
                .map_err(|_| Failure::Usage(format!("{server} {address} has no valid host name")))?;
            Some((connector, name))
        } else {
            None
        };
        let (ca, cert) = (ca.map(|file| file.option), cert.map(|file| file.option));
        Ok(Connector { tls, used: Used { server, ca, cert } })
    }
}

/// A file that an option or a variable names.
struct NamedFile<'a> {
    option: String,
    path: &'a Path,
}

impl NamedFile<'_> {
    fn named(&self) -> tls::Named<'_> {
        (&self.option, self.path)
    }

    fn read(&self) -> Result<Vec<u8>, Failure> {
        let Self { option, path } = self;
        std::fs::read(path)
            .map_err(|error| Failure::Usage(format!("{option} {} can't be read: {error}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(server: &str) -> Connection {
        let options = Options { server: server.to_owned(), ..Options::default() };
        Connection { options, variables: Variables::default() }
    }

    #[test]
    fn ca_without_tls_is_refused() {
        let mut connection = connection("gateway:1");
        connection.options.ca = Some("ca.pem".into());
        let address = connection.address().unwrap();
        assert!(matches!(connection.connector(&address), Err(Failure::Usage(_))));
    }

    #[tokio::test]
    async fn refused_connection_is_reported_in_one_line() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let Err(Failure::Connect(message)) = connection(&address.to_string()).open().await else { panic!() };
        assert!(
            message.starts_with(&format!("can't reach a gateway at http://{address}: Connection refused"))
        );
    }
}
