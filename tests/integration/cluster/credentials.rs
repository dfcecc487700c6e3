//! Credentials that are wrong, revoked and restored while a replica runs.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rcgen::CertificateParams;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use super::*;

fn users(password: &str) -> String {
    format!("authorization {{ users: [{{ user: \"gateway\", password: \"{password}\" }}] }}")
}

/// Replaces the file, as an operator does.
fn write(file: &NamedTempFile, password: &str) {
    let mut other = NamedTempFile::new_in(file.path().parent().unwrap()).unwrap();
    other.write_all(password.as_bytes()).unwrap();
    std::fs::rename(other.path(), file.path()).unwrap();
}

#[tokio::test]
async fn rejected_credentials_are_named_and_read_again_until_they_work() {
    let mut servers = Servers::start(1, &users("first"));
    let file = NamedTempFile::new().unwrap();
    write(&file, "wrong");
    let keys = format!("credentials = {{ user = \"gateway\", password = {{ file = {:?} }} }}", file.path());
    let (nats, _messages) = Nats::start(&cluster(&servers, &keys), 1);
    let mut connection = nats.connection();
    let rejected = |state: &Connection| match state {
        Connection::Connected { .. } => false,
        Connection::Disconnected { why, .. } => why.contains("the server rejects cluster.credentials"),
    };
    for (password, next) in [("first", "second"), ("second", "third")] {
        let state = timeout(PATIENCE, connection.wait_for(rejected)).await.unwrap().unwrap().clone();
        let Connection::Disconnected { why, .. } = state else { panic!("{state:?}") };
        assert!(!why.contains("wrong") && !why.contains("first") && !why.contains("second"), "{why}");
        write(&file, password);
        timeout(PATIENCE, connection.wait_for(Connection::is_connected)).await.unwrap().unwrap();
        // The server disconnects who has the old one.
        servers.reload(&users(next));
    }
    write(&file, "third");
    timeout(PATIENCE, connection.wait_for(|state| !state.is_connected())).await.unwrap().unwrap();
    timeout(PATIENCE, connection.wait_for(Connection::is_connected)).await.unwrap().unwrap();
}

#[tokio::test]
async fn nkey_and_token_sign_in() {
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    for (more, key, value) in [
        (format!("authorization {{ users: [{{ nkey: {PUBLIC} }}] }}"), "nkey", SEED),
        ("authorization { token: \"hush\" }".to_owned(), "token", "hush"),
    ] {
        let servers = Servers::start(1, &more);
        let text = section(&servers.urls(), &format!("credentials = {{ {key} = {{ env = \"SECRET\" }} }}"));
        let config = Config::parse(&text, [("SECRET".to_owned(), value.to_owned())]).unwrap();
        let (nats, _messages) = Nats::start(&config.cluster.unwrap(), 1);
        let mut connection = nats.connection();
        timeout(PATIENCE, connection.wait_for(Connection::is_connected)).await.unwrap().unwrap();
    }
}

async fn connects(cluster: &Cluster) {
    let (nats, _messages) = Nats::start(cluster, 1);
    let mut connection = nats.connection();
    timeout(PATIENCE, connection.wait_for(Connection::is_connected)).await.unwrap().unwrap();
}

/// A JWT as `nsc` issues it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": "1", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": name, "nats": claims,
    });
    let signed = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn credentials_file_signs_in() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let operator_jwt = jwt(&operator, &operator, "operator", &json!({ "type": "operator", "version": 2 }));
    let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
        "leaf": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 });
    let account_claims = json!({ "type": "account", "version": 2, "limits": limits });
    let account_jwt = jwt(&operator, &account, "account", &account_claims);
    let user_claims =
        json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let user_jwt = jwt(&account, &user, "user", &user_claims);
    let id = account.public_key();
    let servers = Servers::start(
        1,
        &format!(
            "jetstream: disabled\noperator: \"{operator_jwt}\"\nresolver: MEMORY\nresolver_preload: {{ {id}: \"{account_jwt}\" }}"
        ),
    );
    let mut file = NamedTempFile::new().unwrap();
    let seed = user.seed().unwrap();
    write!(
        file,
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    .unwrap();
    connects(&cluster(&servers, &format!("credentials = {{ creds = {{ file = {:?} }} }}", file.path())))
        .await;
}

#[tokio::test]
async fn servers_are_trusted_by_their_authority_and_see_the_certificate_of_the_replica() {
    let folder = TempDir::new().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (cert_file, key_file) = (path("cert.pem"), path("key.pem"));
    std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let servers = Servers::start(
        1,
        &format!(
            "tls {{ cert_file: {cert_file:?}, key_file: {key_file:?}, ca_file: {cert_file:?}, verify: true }}"
        ),
    );
    let keys = format!("tls = {{ ca = {cert_file:?}, cert = {cert_file:?}, key = {key_file:?} }}");
    let with_tls = cluster(&servers, &keys);
    connects(&with_tls).await;
    // Without a certificate of its own it is refused.
    let alone = cluster(&servers, &format!("tls = {{ ca = {cert_file:?} }}"));
    assert!(jobwatch::cluster::nats::check(&alone).await.is_err());
}
