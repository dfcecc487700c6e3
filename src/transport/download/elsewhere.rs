//! Files at origins other than the backend's, which the operator allows.
//!
//! Each origin has a client of its own. Requests there have neither the backend's
//! credentials nor the headers of its configuration, unless the operator wrote
//! `with_credentials` for the origin; then they have the credentials. They do not count
//! against the backend's rate, and what the origin answers says nothing of the backend.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};

use super::{File, FileClient, Wanted};
use crate::{
    config,
    job::{BackendFault, FaultKind},
    transport::{Endpoint, SetupError},
    vendors::{Adapter, AllowedOrigin, Elsewhere, FileFault, FileOrigins, RefusedOrigin, origin_refusal},
};

/// Clients of the origins that the operator allows.
#[derive(Debug)]
pub(in crate::transport) struct OtherOrigins {
    clients: Vec<(AllowedOrigin, FileClient)>,
    /// The key that allows them.
    key: String,
}

impl OtherOrigins {
    pub(in crate::transport) fn new(
        name: &Arc<str>,
        adapter: &dyn Adapter,
        poll: &config::Poll,
        network: &config::Network,
    ) -> Result<Self, SetupError> {
        // The headers of the configuration are for the vendor alone.
        let foreign = config::Network { headers: HeaderMap::new(), ..network.clone() };
        let allowed = adapter.file_origins().map(FileOrigins::allowed).unwrap_or_default();
        let client = |allowed: &AllowedOrigin| {
            Ok((allowed.clone(), FileClient::to_public(&allowed.url, poll, &foreign)?))
        };
        let clients = allowed.iter().map(client).collect::<Result<_, SetupError>>()?;
        Ok(Self { clients, key: format!("backends.{name}.allow_origins") })
    }

    /// The client of an allowed origin.
    pub(super) fn client(&self, allowed: &AllowedOrigin) -> Result<&FileClient, FileFault> {
        let client = self.clients.iter().find(|(other, _)| other.url == allowed.url);
        let unknown = || BackendFault::from(FaultKind::Malformed { why: "an origin without a client" });
        client.map(|(_, client)| client).ok_or_else(|| unknown().into())
    }

    /// A fault that names the key which would allow the origin.
    pub(super) fn with_key(&self, fault: FileFault) -> FileFault {
        match fault {
            FileFault::Origin(refused) => RefusedOrigin { key: self.key.clone(), ..*refused }.into(),
            fault => fault,
        }
    }
}

impl Endpoint {
    /// Opens a file at another origin, without credentials.
    pub(super) async fn open_elsewhere(
        &self,
        (mut request, allowed): Elsewhere<'_>,
        wanted: Wanted<'_>,
    ) -> Result<File, FileFault> {
        wanted.put_into(&mut request);
        let client = self.other_origins.client(allowed)?;
        let (head, body) = client.send(request, wanted.offset).await?;
        if let Some(refused) = origin_refusal(&allowed.url, &head) {
            return Err(refused.into());
        }
        let file = self.file(client, &head, body, wanted).map_err(of_origin)?;
        wanted.checked(file)
    }

    /// Opens a file at another origin with a request that has credentials.
    pub(super) async fn open_with_credentials(
        &self,
        request: Request<Bytes>,
        allowed: &AllowedOrigin,
        wanted: Wanted<'_>,
    ) -> Result<File, FileFault> {
        let client = self.other_origins.client(allowed)?;
        let (head, body) = client.send(request, wanted.offset).await?;
        match origin_refusal(&allowed.url, &head) {
            // The others may be about the credentials.
            Some(refused) if head.status().is_redirection() => Err(refused.into()),
            _ => self.file(client, &head, body, wanted).map_err(of_origin),
        }
    }
}

/// A fault of another origin: its throttling is not the backend's.
fn of_origin(fault: FileFault) -> FileFault {
    match fault {
        FileFault::Backend(fault) if fault.kind == FaultKind::Throttled => {
            let kind = FaultKind::Unavailable { why: "it limits the rate of downloads".to_owned() };
            BackendFault { kind, ..fault }.into()
        }
        fault => fault,
    }
}
