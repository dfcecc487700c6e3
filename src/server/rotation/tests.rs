use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tempfile::TempDir;
use tokio::{sync::Notify, time::timeout};

use super::*;
use crate::{
    config::{Config, EnvFile, Environment},
    transport::ResponseBudget,
};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a backend was handed.
#[derive(Default)]
struct Handed {
    secrets: Mutex<Vec<String>>,
    news: Notify,
}

impl Handed {
    fn all(&self) -> Vec<String> {
        self.secrets.lock().unwrap().clone()
    }

    fn replace(self: &Arc<Self>) -> Replace {
        let handed = Arc::clone(self);
        Box::new(move |secret| {
            handed.secrets.lock().unwrap().push(secret.expose_secret().to_owned());
            handed.news.notify_one();
            Ok(())
        })
    }
}

struct Room {
    dir: TempDir,
    rotation: Rotation,
    handed: Arc<Handed>,
}

impl Room {
    /// A backend whose key is found so; the file `key` holds `old`.
    fn new(place: impl Fn(&Path) -> String, environment: impl Fn(&Path) -> Environment) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "old\n").unwrap();
        let (place, environment) = (place(dir.path()), environment(dir.path()));
        let text = format!(
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://127.0.0.1\"\ncredentials.api_key = {place}"
        );
        let config = Config::parse(&text, environment).unwrap();
        let handed = Arc::new(Handed::default());
        let mut rotation = Rotation::default();
        rotation.watch(config.backends[0].credentials.secret().unwrap(), handed.replace());
        Self { dir, rotation, handed }
    }

    fn of_file() -> Self {
        Self::new(|dir| format!("{{ file = {:?} }}", dir.join("key")), |_| Environment::default())
    }

    /// The key is the variable KEY, of the process or the file `env` there.
    fn of_variable(own: &'static [(&str, &str)], file: &'static str) -> Self {
        let environment = move |dir: &Path| {
            let path = dir.join("env");
            fs::write(&path, file).unwrap();
            let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Environment::from(own).with_file(EnvFile::load(&path).unwrap())
        };
        Self::new(|_| "{ env = \"KEY\" }".to_owned(), environment)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and looks; what was handed over so far, and what is warned of.
    async fn after(&mut self, name: &str, content: &str) -> (Vec<String>, Vec<String>) {
        fs::write(self.path(name), content).unwrap();
        self.look().await
    }

    async fn look(&mut self) -> (Vec<String>, Vec<String>) {
        self.rotation.look().await;
        (self.handed.all(), self.rotation.warned.iter().cloned().collect())
    }
}

const KEY: &str = "backends.x.credentials.api_key";

#[tokio::test]
async fn a_changed_file_is_handed_over_once() {
    let mut room = Room::of_file();
    assert_eq!(room.look().await.0, [""; 0]);
    assert_eq!(room.after("key", "new\r\n").await.0, ["new"]);
    assert_eq!(room.look().await.0, ["new"]);
    assert_eq!(room.after("key", "new").await.0, ["new"], "it is the same secret");
    assert_eq!(room.after("key", "old").await.0, ["new", "old"]);
}

#[tokio::test]
async fn what_can_not_be_used_keeps_the_secret_and_warns_until_it_is_better() {
    let mut room = Room::of_file();
    for broken in ["", "\n", "ne\0w", "ne\nw", "Bearer new", "n w"] {
        assert_eq!(room.after("key", broken).await, (vec![], vec![KEY.to_owned()]), "of {broken:?}");
    }
    fs::write(room.path("key"), b"n\xffw").unwrap();
    assert_eq!(room.look().await.1, [KEY]);
    fs::remove_file(room.path("key")).unwrap();
    assert_eq!(room.look().await.1, [KEY]);
    fs::create_dir(room.path("key")).unwrap();
    assert_eq!(room.look().await.1, [KEY]);
    fs::remove_dir(room.path("key")).unwrap();
    assert_eq!(room.after("key", "new").await, (vec!["new".to_owned()], vec![]));
}

#[tokio::test]
async fn a_secret_that_a_backend_refuses_is_offered_again() {
    let mut room = Room::of_file();
    let text = "allow_inline_secrets = true\n[backends.x]\nvendor = \"immuta\"\n\
                base_url = \"http://127.0.0.1\"\ncredentials.api_key = \"old\"";
    let endpoint =
        Endpoint::new(&Config::parse(text, []).unwrap().backends[0], &ResponseBudget::new(1 << 20)).unwrap();
    let handed = Arc::clone(&room.handed);
    room.rotation.in_use[0].replace = Box::new(move |secret| {
        handed.secrets.lock().unwrap().push(secret.expose_secret().to_owned());
        endpoint.rotate("no\nheader".into())
    });
    assert_eq!(room.after("key", "new").await, (vec!["new".to_owned()], vec![KEY.to_owned()]));
    assert_eq!(room.look().await.0, ["new", "new"]);
    assert_eq!(room.after("key", "old").await.1, [""; 0]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_swapped_under_a_symbolic_link_is_seen() {
    use std::os::unix::fs::symlink;

    // As Kubernetes mounts a secret: key -> ..data/key, ..data -> a directory.
    let mut room = Room::of_file();
    let write = |version: &str, secret: &str| {
        fs::create_dir(room.path(version)).unwrap();
        fs::write(room.path(version).join("key"), secret).unwrap();
    };
    write("..1", "old");
    write("..2", "new");
    fs::remove_file(room.path("key")).unwrap();
    symlink("..1", room.path("..data")).unwrap();
    symlink("..data/key", room.path("key")).unwrap();
    assert_eq!(room.look().await, (vec![], vec![]));
    symlink("..2", room.path("..data_tmp")).unwrap();
    fs::rename(room.path("..data_tmp"), room.path("..data")).unwrap();
    assert_eq!(room.look().await, (vec!["new".to_owned()], vec![]));
}

#[tokio::test]
async fn a_variable_of_the_environment_file_is_seen() {
    let mut room = Room::of_variable(&[("KEY", "elder")], "KEY=old\n");
    assert_eq!(room.look().await, (vec![], vec![]));
    let env = room.path("env").display().to_string();
    assert_eq!(room.after("env", "export KEY='new'\nOTHER=1").await.0, ["new"]);
    assert_eq!(room.after("env", "KEY=\"half").await.1, [format!("{env} line 1")]);
    assert_eq!(room.after("env", "").await.1[0], env);
    assert_eq!(room.after("env", "OTHER=1").await.1, [KEY], "the process's own is not taken instead");
    fs::remove_file(room.path("env")).unwrap();
    assert_eq!(room.look().await, (vec!["new".to_owned()], vec![env]));
    assert_eq!(room.after("env", "KEY=newer").await, (vec!["new".to_owned(), "newer".to_owned()], vec![]));
}

#[tokio::test]
async fn an_environment_file_may_come_to_hold_what_the_process_has() {
    let mut room = Room::of_variable(&[("KEY", "old")], "OTHER=1");
    assert_eq!(room.look().await, (vec![], vec![]));
    assert_eq!(room.after("env", "OTHER=1\nKEY=new").await.0, ["new"]);
}

#[tokio::test]
async fn what_can_not_change_is_not_looked_at() {
    let literal = Room::new(
        |_| "{ env = \"KEY\" }".to_owned(),
        |_| Environment::from([("KEY".to_owned(), "old".to_owned())]),
    );
    assert!(literal.rotation.in_use.is_empty());
    timeout(PATIENCE, literal.rotation.run(EVERY)).await.expect("there is nothing to wait for");
}

#[tokio::test]
async fn it_looks_at_an_interval() {
    let Room { dir, rotation, handed } = Room::of_file();
    let task = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(rotation.run(Duration::from_millis(5))));
    for secret in ["new", "newer"] {
        fs::write(dir.path().join("key"), secret).unwrap();
        timeout(PATIENCE, handed.news.notified()).await.expect("it is seen");
    }
    assert_eq!(handed.all(), ["new", "newer"]);
    drop(task);
}

#[test]
fn a_secret_is_not_shown() {
    let room = Room::of_file();
    assert!(!format!("{:?}", room.rotation).contains("old"));
}
