//! The connection limit, and the time-out of a silent connection.

use std::{fs, sync::Arc};

use jobwatch::simulators::{Plan, Vendor};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs},
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::harness::*;

#[tokio::test]
async fn silent_connection_blocks_others_for_at_most_ten_seconds() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start_with("[limits]\nconnections = 1\n", [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("pending")));
    let _silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut client = gateway.client();
    let mut call = Box::pin(client.get_job_status(get_request(&job)));
    let early = timeout(Duration::from_secs(1), &mut call).await;
    assert!(early.is_err(), "the only place is taken");
    let response = timeout(Duration::from_secs(20), call).await.expect("the silent connection is closed");
    assert_eq!(response.unwrap().into_inner().status.unwrap().vendor_state, "pending");
}

/// A certificate for localhost, and `[server]` with it.
fn tls() -> (TempDir, rcgen::Certificate, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    fs::write(&certificate, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    let section =
        format!("[server]\ntls = {{ cert = '{}', key = '{}' }}\n", certificate.display(), key.display());
    (dir, cert, section)
}

/// Such a client sees nothing but the last TLS alert.
#[tokio::test]
async fn tls_client_with_failed_handshake_sees_the_reason() {
    let (_dir, cert, section) = tls();
    let gateway = Gateway::start_with(&section, [Backend::dead(Vendor::Claret).await]).await;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"spdy/3".to_vec()];
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let error = guard(connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap_err();
    assert!(format!("{error:?}").contains("NoApplicationProtocol"), "{error:?}");
}

#[tokio::test]
async fn unfinished_handshake_blocks_others_for_at_most_ten_seconds() {
    let (_dir, cert, section) = tls();
    let sections = format!("{section}[limits]\nconnections = 1\n");
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start_with(&sections, [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("pending")));

    // The beginning of a ClientHello of 512 bytes.
    let mut stalled = TcpStream::connect(gateway.address).await.unwrap();
    stalled.write_all(&[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 100]].concat()).await.unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert.pem()));
    let url = format!("https://localhost:{}", gateway.address.port());
    let channel = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect_lazy();
    let mut client = Client::new(channel);
    let mut call = Box::pin(client.get_job_status(get_request(&job)));
    let early = timeout(Duration::from_secs(1), &mut call).await;
    assert!(early.is_err(), "the only place is taken");
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(20), stalled.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "it is closed");
    let response = timeout(Duration::from_secs(20), call).await.expect("its slot is free");
    assert_eq!(response.unwrap().into_inner().status.unwrap().vendor_state, "pending");
}
