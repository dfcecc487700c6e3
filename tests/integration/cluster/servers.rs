//! Real NATS servers on loopback.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;

use super::link::{Link, Passes};

/// The program that `make tools` installs.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("JOBWATCH_NATS_SERVER") {
        return program.into();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/python/bin/nats-server");
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

/// A free port below those that the system gives to clients, so that a server that starts again
/// finds it free.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Servers of one cluster, or a single one. They end with this.
pub(super) struct Servers {
    all: Vec<Server>,
    folder: TempDir,
    /// More lines of each configuration, such as users.
    more: String,
    /// From one to another, if there are any.
    links: BTreeMap<(usize, usize), Link>,
}

struct Server {
    child: Option<Child>,
    port: u16,
    route: u16,
}

impl Servers {
    /// Starts this many.
    pub(super) fn start(count: usize, more: &str) -> Self {
        let mut servers = Self::prepared(count, more);
        (0..count).for_each(|index| servers.start_one(index));
        servers
    }

    fn prepared(count: usize, more: &str) -> Self {
        let ports = || Server { child: None, port: free_port(), route: free_port() };
        let all = (0..count).map(|_| ports()).collect();
        Self { all, folder: TempDir::new().unwrap(), more: more.to_owned(), links: BTreeMap::new() }
    }

    /// Starts this many, with links between them that can be cut.
    pub(super) async fn start_linked(count: usize) -> Self {
        let mut servers = Self::prepared(count, "");
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let link = Link::to(servers.all[to].route).await;
                servers.links.insert((from, to), link);
            }
        }
        (0..count).for_each(|index| servers.start_one(index));
        servers
    }

    /// Sets what passes between one of them and the others.
    pub(super) fn link_to_others(&self, index: usize, passes: Passes) {
        let of_one = self.links.iter().filter(|((from, to), _)| *from == index || *to == index);
        of_one.for_each(|(_, link)| link.set(passes));
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        self.all.iter().map(|server| server.port).collect()
    }

    /// Sends a signal to one.
    pub(super) fn signal(&self, index: usize, name: &str) {
        let id = self.all[index].child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.all.iter().map(|server| format!("nats://127.0.0.1:{}", server.port)).collect()
    }

    fn write_config(&self, index: usize) -> PathBuf {
        let Server { port, route, .. } = &self.all[index];
        let store = self.folder.path().join(format!("store-{index}")).display().to_string();
        let mut text = format!("server_name: nats-{index}\nlisten: 127.0.0.1:{port}\n{}\n", self.more);
        if !self.more.contains("jetstream") {
            writeln!(text, "jetstream {{ store_dir: {store:?} }}").unwrap();
        }
        if self.all.len() > 1 {
            let port = |to: usize| self.links.get(&(index, to)).map_or(self.all[to].route, Link::port);
            let others = (0..self.all.len()).filter(|to| *to != index);
            let routes: Vec<String> = others.map(|to| format!("nats://127.0.0.1:{}", port(to))).collect();
            // Clients and servers would learn addresses that are not behind the links.
            let hidden = if self.links.is_empty() { "" } else { ", advertise: \"127.0.0.1:1\"" };
            writeln!(
                text,
                "cluster {{ name: test, listen: 127.0.0.1:{route}, routes: {routes:?}, no_advertise: true{hidden} }}"
            )
            .unwrap();
        }
        let path = self.folder.path().join(format!("nats-{index}.conf"));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts one that was killed, or not started yet.
    pub(super) fn start_one(&mut self, index: usize) {
        let config = self.write_config(index);
        let mut command = Command::new(program());
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.all[index].child = Some(command.spawn().unwrap());
    }

    /// Ends the one of this name at once.
    pub(super) fn kill(&mut self, name: &str) {
        let index: usize = name.strip_prefix("nats-").unwrap().parse().unwrap();
        self.kill_one(index);
    }

    pub(super) fn kill_one(&mut self, index: usize) {
        let mut child = self.all[index].child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Forgets all that a server that was killed has stored.
    pub(super) fn lose_store(&self, index: usize) {
        std::fs::remove_dir_all(self.folder.path().join(format!("store-{index}"))).unwrap();
    }

    /// Has the single server read other lines of its configuration.
    pub(super) fn reload(&mut self, more: &str) {
        more.clone_into(&mut self.more);
        self.write_config(0);
        self.signal(0, "HUP");
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.all.iter_mut().filter_map(|server| server.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
