//! Credentials that are wrong, revoked and restored while a replica runs.

use std::io::Write as _;

use tempfile::NamedTempFile;

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
