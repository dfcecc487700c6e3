//! TLS between the program and a gateway: what is said when it fails, and client certificates.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::*;
use crate::program::{Program, command};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    named_authority(&format!("authority {}", rand::random::<u64>()))
}

fn named_authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A folder of certificates.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// Writes NAME.pem and NAME.key, issued for these names.
    fn issue(
        &self,
        name: &str,
        issuer: &Authority,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, issuer).unwrap();
        (
            self.write(&format!("{name}.pem"), &cert.pem()),
            self.write(&format!("{name}.key"), &key.serialize_pem()),
        )
    }
}

fn client(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

/// A gateway with this `server.tls`.
async fn gateway(tls: &str) -> (Program, String) {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ntls = {{ {tls} }}\n[backends.db]\nvendor = \"kinetica\"\n\
         base_url = \"http://127.0.0.1:1\"\n"
    );
    let program = Program::run(command(&config), "info").await;
    let port = program.address().rsplit_once(':').unwrap().1.to_owned();
    (program, port)
}

/// A TLS server whose certificate may be one that no gateway starts with.
async fn tls_server((cert, key): &(String, String)) -> u16 {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).unwrap().collect();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    port
}

async fn backends(url: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = jobwatch(&["backends", "-o", "name", "--server", url]);
    command.envs(variables.iter().copied());
    Ran::of(&guard(command.output()).await.unwrap())
}

/// The error without what it is about.
fn reason<'a>(ran: &'a Ran, url: &str) -> &'a str {
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let begin = format!("error: can't reach a gateway at {url}: ");
    ran.err
        .strip_prefix(&*begin)
        .and_then(|rest| rest.strip_suffix('\n'))
        .unwrap_or_else(|| panic!("{}", ran.err))
}

#[tokio::test]
async fn faults_of_the_servers_certificate_are_explained() {
    let (files, issuer, stranger) = (Files::new(), named_authority("one"), authority());
    let ca = files.write("ca.pem", &issuer.pem());
    let other = files.write("other.pem", &stranger.pem());
    let namesake = files.write("namesake.pem", &named_authority("one").pem());
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 2);
    let future = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2900, 1, 2), date_time_ymd(2901, 1, 2));
    };
    let server = |_: &mut CertificateParams| {};
    for (certificate, ca, words) in [
        (
            files.issue("good", &issuer, &["localhost"], server),
            &other,
            "the server's certificate is not from an authority in the file of JOBWATCH_CA; name the file of the \
             authority that issued it",
        ),
        (
            files.issue("again", &issuer, &["localhost"], server),
            &namesake,
            "the server's certificate is not signed by the authority in the file of JOBWATCH_CA, which has the \
             same name but another key; name the file of the authority that issued it with --ca",
        ),
        (
            files.issue("name", &issuer, &["gateway.test", "10.0.0.1"], server),
            &ca,
            "the server's certificate is for gateway.test, 10.0.0.1, not for localhost; write one of its names \
             for --server",
        ),
        (
            files.issue("expired", &issuer, &["localhost"], expired),
            &ca,
            "the server's certificate has expired on 2020-01-02T00:00:00Z; have it renewed",
        ),
        (
            files.issue("future", &issuer, &["localhost"], future),
            &ca,
            "the server's certificate is not valid before 2900-01-02T00:00:00Z; check the clock of this machine",
        ),
        (
            files.issue("client", &issuer, &["localhost"], client),
            &ca,
            "the server's certificate is not for servers; have one issued with the extended key usage serverAuth",
        ),
    ] {
        let port = tls_server(&certificate).await;
        let url = format!("https://localhost:{port}");
        let ran = backends(&url, &[("JOBWATCH_CA", ca)]).await;
        assert_eq!(reason(&ran, &url), words);
    }
}

#[tokio::test]
async fn certificate_of_an_unknown_authority_suggests_the_option() {
    let (files, issuer) = (Files::new(), authority());
    let system = files.write("system.pem", &authority().pem());
    let (cert, key) = files.issue("server", &issuer, &["localhost"], |_| {});
    let (_program, port) = gateway(&format!("cert = '{cert}', key = '{key}'")).await;
    let url = format!("https://localhost:{port}");
    let ran = backends(&url, &[("SSL_CERT_FILE", &system)]).await;
    let words = "the server's certificate is from an authority that this machine does not trust; name the file \
                 of that authority with --ca";
    assert_eq!(reason(&ran, &url), words);
}

#[tokio::test]
async fn client_certificate_is_presented_and_its_faults_are_explained() {
    let (files, issuer, clients, stranger) = (Files::new(), authority(), authority(), authority());
    let ca = files.write("ca.pem", &issuer.pem());
    let client_ca = files.write("clients.pem", &clients.pem());
    let (cert, key) = files.issue("server", &issuer, &["localhost"], |_| {});
    let tls = format!("cert = '{cert}', key = '{key}', client_ca = '{client_ca}'");
    let (_program, port) = gateway(&tls).await;
    let url = format!("https://localhost:{port}");
    let run = async |identity: Option<&(String, String)>| {
        let mut variables = vec![("JOBWATCH_CA", &*ca)];
        if let Some((cert, key)) = identity {
            variables.extend([("JOBWATCH_CERT", &**cert), ("JOBWATCH_KEY", &**key)]);
        }
        backends(&url, &variables).await
    };
    let good = files.issue("good", &clients, &["billing"], client);
    let ran = run(Some(&good)).await;
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), "db\n", ""));

    // More than once: the server's alert races with what the client sends.
    for _ in 0..20 {
        let ran = run(None).await;
        let words = "the server requires a client certificate; name its files with --cert and --key";
        assert_eq!(reason(&ran, &url), words);
    }
    let expired = files.issue("expired", &clients, &["billing"], |params| {
        client(params);
        params.not_after = date_time_ymd(2020, 1, 2);
    });
    for (identity, words) in [
        (
            files.issue("foreign", &stranger, &["billing"], client),
            "it is not from an authority that the server trusts for clients",
        ),
        (expired, "it has expired, or is not valid yet"),
    ] {
        for _ in 0..10 {
            let ran = run(Some(&identity)).await;
            assert_eq!(
                reason(&ran, &url),
                format!("the server refuses the certificate of JOBWATCH_CERT: {words}")
            );
        }
    }
}

#[tokio::test]
async fn unusable_files_of_tls_are_refused_with_their_option() {
    let (files, issuer) = (Files::new(), authority());
    let (cert, key) = files.issue("a", &issuer, &["billing"], client);
    let (_, other) = files.issue("b", &issuer, &["billing"], client);
    let ca = files.write("ca.pem", &issuer.pem());
    let garbage = files.write("garbage.pem", "no PEM\n");
    let none = files.path("none.pem").display().to_string();
    for (variables, message) in [
        (vec![("JOBWATCH_CA", &garbage)], format!("JOBWATCH_CA {garbage} holds no certificate in PEM, ")),
        (
            vec![("JOBWATCH_CA", &none)],
            format!("JOBWATCH_CA {none} can't be read: No such file or directory"),
        ),
        (
            vec![("JOBWATCH_CERT", &cert)],
            "JOBWATCH_CERT is set without its key; write --key FILE, too".to_owned(),
        ),
        (
            vec![("JOBWATCH_KEY", &key)],
            "JOBWATCH_KEY is set without its certificate; write --cert FILE, too".to_owned(),
        ),
        (
            vec![("JOBWATCH_CA", &ca), ("JOBWATCH_CERT", &cert), ("JOBWATCH_KEY", &cert)],
            format!("JOBWATCH_KEY {cert} holds no private key in PEM, "),
        ),
        (
            vec![("JOBWATCH_CA", &ca), ("JOBWATCH_CERT", &cert), ("JOBWATCH_KEY", &other)],
            format!(
                "JOBWATCH_CERT {cert} and JOBWATCH_KEY {other} can't be used together: the key is not that"
            ),
        ),
    ] {
        let variables: Vec<_> = variables.into_iter().map(|(name, value)| (name, &**value)).collect();
        let ran = backends("https://localhost:1", &variables).await;
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.starts_with(&format!("error: {message}")), "{}", ran.err);
    }
}
