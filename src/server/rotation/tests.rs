use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tempfile::TempDir;
use tokio::{sync::Notify, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::{
    config::{Config, EnvFile, Environment},
    transport::{ResponseBudget, Upstream},
};

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The secrets that a backend received.
#[derive(Default)]
struct Received {
    secrets: Mutex<Vec<String>>,
    changed: Notify,
}

impl Received {
    fn all(&self) -> Vec<String> {
        self.secrets.lock().unwrap().clone()
    }

    fn replace(self: &Arc<Self>) -> Replace {
        let received = Arc::clone(self);
        Box::new(move |secret| {
            received.secrets.lock().unwrap().push(secret.expose_secret().to_owned());
            received.changed.notify_one();
            Ok(())
        })
    }
}

struct Fixture {
    dir: TempDir,
    rotation: Rotation,
    received: Arc<Received>,
}

impl Fixture {
    /// A backend with this key; the file `key` contains `old`.
    fn new(key: impl Fn(&Path) -> String, environment: impl Fn(&Path) -> Environment) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "old\n").unwrap();
        let (key, environment) = (key(dir.path()), environment(dir.path()));
        let text = format!(
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://127.0.0.1\"\ncredentials.api_key = {key}"
        );
        let config = Config::parse(&text, environment).unwrap();
        let received = Arc::new(Received::default());
        let mut rotation = Rotation::default();
        rotation.add_secret(config.backends[0].credentials.secret().unwrap(), received.replace());
        Self { dir, rotation, received }
    }

    fn of_file() -> Self {
        Self::new(|dir| format!("{{ file = {:?} }}", dir.join("key")), |_| Environment::default())
    }

    /// The key is the variable KEY, of the process or the file `env` there.
    fn of_variable(process: &'static [(&str, &str)], file: &'static str) -> Self {
        let environment = move |dir: &Path| {
            let path = dir.join("env");
            fs::write(&path, file).unwrap();
            let process = process.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Environment::from(process).with_file(EnvFile::load(&path).unwrap())
        };
        Self::new(|_| "{ env = \"KEY\" }".to_owned(), environment)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and rereads. Returns all secrets received so far and the subjects of
    /// warnings.
    async fn after(&mut self, name: &str, content: &str) -> (Vec<String>, Vec<String>) {
        fs::write(self.path(name), content).unwrap();
        self.read_all().await
    }

    async fn read_all(&mut self) -> (Vec<String>, Vec<String>) {
        self.rotation.read_all().await;
        (self.received.all(), self.rotation.warned.iter().cloned().collect())
    }
}

const KEY: &str = "backends.x.credentials.api_key";

#[tokio::test]
async fn changed_file_replaces_the_secret_once() {
    let mut fixture = Fixture::of_file();
    assert_eq!(fixture.read_all().await.0, [""; 0]);
    assert_eq!(fixture.after("key", "new\r\n").await.0, ["new"]);
    assert_eq!(fixture.read_all().await.0, ["new"]);
    assert_eq!(fixture.after("key", "new").await.0, ["new"], "it is the same secret");
    assert_eq!(fixture.after("key", "old").await.0, ["new", "old"]);
}

#[tokio::test]
async fn unusable_file_keeps_the_secret_and_warns_once_until_it_is_usable() {
    let mut fixture = Fixture::of_file();
    for broken in ["", "\n", "ne\0w", "ne\nw", "Bearer new", "n w"] {
        assert_eq!(fixture.after("key", broken).await, (vec![], vec![KEY.to_owned()]), "of {broken:?}");
    }
    fs::write(fixture.path("key"), b"n\xffw").unwrap();
    assert_eq!(fixture.read_all().await.1, [KEY]);
    fs::remove_file(fixture.path("key")).unwrap();
    assert_eq!(fixture.read_all().await.1, [KEY]);
    fs::create_dir(fixture.path("key")).unwrap();
    assert_eq!(fixture.read_all().await.1, [KEY]);
    fs::remove_dir(fixture.path("key")).unwrap();
    assert_eq!(fixture.after("key", "new").await, (vec!["new".to_owned()], vec![]));
}

#[tokio::test]
async fn secret_refused_by_the_backend_is_offered_again() {
    let mut fixture = Fixture::of_file();
    let text = "allow_inline_secrets = true\n[backends.x]\nvendor = \"immuta\"\n\
                base_url = \"http://127.0.0.1\"\ncredentials.api_key = \"old\"";
    let endpoint =
        Endpoint::new(&Config::parse(text, []).unwrap().backends[0], &ResponseBudget::new(1 << 20)).unwrap();
    let received = Arc::clone(&fixture.received);
    fixture.rotation.in_use[0].replace = Box::new(move |secret| {
        received.secrets.lock().unwrap().push(secret.expose_secret().to_owned());
        endpoint.rotate("no\nheader".into())
    });
    assert_eq!(fixture.after("key", "new").await, (vec!["new".to_owned()], vec![KEY.to_owned()]));
    assert_eq!(fixture.read_all().await.0, ["new", "new"]);
    assert_eq!(fixture.after("key", "old").await.1, [""; 0]);
}

#[cfg(unix)]
#[tokio::test]
async fn directory_swapped_under_a_symbolic_link_replaces_the_secret() {
    use std::os::unix::fs::symlink;

    // As Kubernetes mounts a secret: key -> ..data/key, ..data -> a directory.
    let mut fixture = Fixture::of_file();
    let write = |version: &str, secret: &str| {
        fs::create_dir(fixture.path(version)).unwrap();
        fs::write(fixture.path(version).join("key"), secret).unwrap();
    };
    write("..1", "old");
    write("..2", "new");
    fs::remove_file(fixture.path("key")).unwrap();
    symlink("..1", fixture.path("..data")).unwrap();
    symlink("..data/key", fixture.path("key")).unwrap();
    assert_eq!(fixture.read_all().await, (vec![], vec![]));
    symlink("..2", fixture.path("..data_tmp")).unwrap();
    fs::rename(fixture.path("..data_tmp"), fixture.path("..data")).unwrap();
    assert_eq!(fixture.read_all().await, (vec!["new".to_owned()], vec![]));
}

#[tokio::test]
async fn changed_variable_of_the_environment_file_replaces_the_secret() {
    let mut fixture = Fixture::of_variable(&[("KEY", "older")], "KEY=old\n");
    assert_eq!(fixture.read_all().await, (vec![], vec![]));
    let env = fixture.path("env").display().to_string();
    assert_eq!(fixture.after("env", "export KEY='new'\nOTHER=1").await.0, ["new"]);
    assert_eq!(fixture.after("env", "KEY=\"half").await.1, [format!("{env} line 1")]);
    assert_eq!(fixture.after("env", "").await.1[0], env);
    assert_eq!(fixture.after("env", "OTHER=1").await.1, [KEY], "the process's variable is not used instead");
    fs::remove_file(fixture.path("env")).unwrap();
    assert_eq!(fixture.read_all().await, (vec!["new".to_owned()], vec![env]));
    assert_eq!(fixture.after("env", "KEY=newer").await, (vec!["new".to_owned(), "newer".to_owned()], vec![]));
}

#[tokio::test]
async fn variable_added_to_the_environment_file_overrides_the_process() {
    let mut fixture = Fixture::of_variable(&[("KEY", "old")], "OTHER=1");
    assert_eq!(fixture.read_all().await, (vec![], vec![]));
    assert_eq!(fixture.after("env", "OTHER=1\nKEY=new").await.0, ["new"]);
}

#[tokio::test]
async fn secret_that_cannot_change_is_not_reread() {
    let literal = Fixture::new(
        |_| "{ env = \"KEY\" }".to_owned(),
        |_| Environment::from([("KEY".to_owned(), "old".to_owned())]),
    );
    assert!(literal.rotation.in_use.is_empty());
}

#[tokio::test]
async fn secret_file_is_reread_at_the_interval() {
    let Fixture { dir, rotation, received } = Fixture::of_file();
    let (_changes, changes) = mpsc::channel(CHANGES);
    let task = AbortOnDropHandle::new(tokio::spawn(rotation.run(Duration::from_millis(5), changes)));
    for secret in ["new", "newer"] {
        fs::write(dir.path().join("key"), secret).unwrap();
        timeout(PATIENCE, received.changed.notified()).await.expect("the secret is replaced");
    }
    assert_eq!(received.all(), ["new", "newer"]);
    drop(task);
}

/// An endpoint with the secret in the file `key` of this folder, and its credentials.
fn endpoint(dir: &Path) -> (config::Credentials, Arc<Endpoint>) {
    let text = format!(
        "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://127.0.0.1\"\n\
         credentials.api_key = {{ file = {:?} }}",
        dir.join("key")
    );
    let backend = Config::parse(&text, []).unwrap().backends.remove(0);
    let endpoint = Endpoint::new(&backend, &ResponseBudget::new(1 << 20)).unwrap();
    (backend.credentials, Arc::new(endpoint))
}

#[tokio::test]
async fn secret_of_a_backend_that_is_added_is_reread_and_that_of_a_removed_one_is_not() {
    let Fixture { dir, rotation, received } = Fixture::of_file();
    let (credentials, endpoint) = endpoint(dir.path());
    let (changes, received_changes) = mpsc::channel(CHANGES);
    let task = AbortOnDropHandle::new(tokio::spawn(rotation.run(Duration::from_millis(5), received_changes)));
    // The file of the backend before, under the same key.
    changes.send(Change::Remove(credentials.clone())).await.unwrap();
    changes.send(Change::Add(credentials.clone(), Arc::clone(&endpoint))).await.unwrap();
    fs::write(dir.path().join("key"), "new").unwrap();
    let mut rotations = 0;
    while rotations < 2 {
        timeout(PATIENCE, endpoint.credentials_rotated()).await.expect("the secret is replaced");
        rotations += 1;
        fs::write(dir.path().join("key"), format!("newer {rotations}").replace(' ', "-")).unwrap();
    }
    assert_eq!(received.all(), [""; 0], "the removed one gets none");
    changes.send(Change::Remove(credentials)).await.unwrap();
    let ends = async {
        while Arc::strong_count(&endpoint) > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ends).await.expect("it is forgotten");
    drop(task);
}

#[test]
fn debug_output_has_no_secret() {
    let fixture = Fixture::of_file();
    assert!(!format!("{:?}", fixture.rotation).contains("old"));
}
