//! The environment's proxy is used for remote vendors and never for this machine.

use std::{io::Write, process::Stdio};

use jobwatch::simulators::Vendor;
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};

use crate::harness::*;

/// Runs `jobwatch check --connect` with a proxy. Returns success and the output.
async fn check(proxy: &str, backend: Backend) -> (bool, String) {
    let mut config = NamedTempFile::new().unwrap();
    config.write_all(config_text("", [backend]).as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(["check", "--connect", "--config"]).arg(config.path());
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, proxy);
    }
    let output = guard(command.output()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn proxy_is_not_used_for_loopback_vendors() {
    let proxy = format!("http://{}", own_address().await);
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let (ok, output) = check(&proxy, Backend::of(&simulator)).await;
        assert!(ok, "{output}");
        assert!(!simulator.calls().is_empty());
    }
}

#[tokio::test]
async fn proxy_is_used_for_remote_vendors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let proxied = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 65536];
        let length = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let backend = Backend::at(Vendor::Immuta, "http://vendor.invalid").bearer("t0ken");
    let (ok, output) = check(&proxy, backend).await;
    assert!(!ok && output.contains("502"), "{output}");
    let head = guard(proxied).await.unwrap();
    assert!(head.split(' ').nth(1).unwrap().starts_with("http://vendor.invalid/jobs/statuses"), "{head}");
}
