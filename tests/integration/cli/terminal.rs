//! The program on a pseudo-terminal: what a person sees.

use std::{fs::File, io::Read, os::fd::OwnedFd, thread::JoinHandle};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::*;

const SCROLLBACK: usize = 1000;

/// A terminal of this size, and what is on it.
pub(super) struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
    changed: Arc<Notify>,
    reader: Option<JoinHandle<()>>,
    program: OwnedFd,
}

impl Terminal {
    // A gateway that a test starts must not hold the terminal open.
    pub(super) fn new(rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let program = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&program, size).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, SCROLLBACK)));
        let (raw, changed) = (Arc::default(), Arc::new(Notify::new()));
        let reader = {
            let (screen, raw, changed) = (Arc::clone(&screen), Arc::clone(&raw), Arc::clone(&changed));
            std::thread::spawn(move || read_all(File::from(master), &screen, &raw, &changed))
        };
        Self { screen, raw, changed, reader: Some(reader), program }
    }

    fn start(&self, args: &[&str], gateway: &Gateway, environment: &[(&str, &str)]) -> tokio::process::Child {
        self.start_at(args, &gateway.address.to_string(), environment)
    }

    pub(super) fn start_at(
        &self,
        args: &[&str],
        server: &str,
        environment: &[(&str, &str)],
    ) -> tokio::process::Child {
        let mut command = jobwatch(args);
        command.env("JOBWATCH_SERVER", server).env("TERM", "xterm");
        command.envs(environment.iter().copied());
        command.stdout(self.program.try_clone().unwrap()).stderr(self.program.try_clone().unwrap());
        command.spawn().unwrap()
    }

    /// Waits until the screen contains this.
    pub(super) async fn shows(&self, text: &str) -> String {
        self.find(|contents| contents.contains(text).then(|| contents.to_owned())).await
    }

    /// Waits until something is found on the screen.
    async fn find<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        let found = async {
            loop {
                let contents = self.screen.lock().unwrap().screen().contents();
                if let Some(found) = find(&contents) {
                    return found;
                }
                self.changed.notified().await;
            }
        };
        guard(found).await
    }

    /// All lines, those that have scrolled away included, once the program has exited.
    pub(super) fn finish(mut self) -> (Vec<String>, String) {
        drop(self.program);
        self.reader.take().unwrap().join().unwrap();
        let mut screen = self.screen.lock().unwrap();
        let (rows, columns) = screen.screen().size();
        screen.screen_mut().set_scrollback(usize::MAX);
        let history = screen.screen().scrollback();
        let mut lines = Vec::new();
        for above in (1..=history).rev() {
            screen.screen_mut().set_scrollback(above);
            lines.extend(screen.screen().rows(0, columns).next());
        }
        screen.screen_mut().set_scrollback(0);
        lines.extend(screen.screen().rows(0, columns).take(rows.into()));
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
        let raw = String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned();
        (lines, raw)
    }
}

/// Until the last program has closed the terminal.
fn read_all(mut master: File, screen: &Mutex<vt100::Parser>, raw: &Mutex<Vec<u8>>, changed: &Notify) {
    let mut bytes = [0; 4096];
    while let Ok(count) = master.read(&mut bytes) {
        if count == 0 {
            break;
        }
        screen.lock().unwrap().process(&bytes[..count]);
        raw.lock().unwrap().extend_from_slice(&bytes[..count]);
        changed.notify_one();
    }
}

pub(super) const LONG: &str = "cefb58a0-cd71-11ec-8e29-81c20d280994";

pub(super) async fn open_gateway(watches: Vec<Replies>) -> Gateway {
    Gateway::serve(Scripted { watches: scripts(watches), stays_open: true, ..Scripted::default() }).await
}

#[tokio::test]
async fn board_of_many_jobs_keeps_open_ones_visible_and_ended_ones_in_the_history() {
    for (rows, columns) in [(24, 80), (50, 160)] {
        let done = (0..60).map(|_| vec![response("done", "a")]);
        let running = (0..3).map(|_| vec![response("running", "a")]);
        let gateway = open_gateway(done.chain(running).collect()).await;
        let names: Vec<_> = (0..63).map(|n| format!("immuta/{LONG}-{n}")).collect();
        let args: Vec<_> = ["watch"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let terminal = Terminal::new(rows, columns);
        let mut child = terminal.start(&args, &gateway, &[]);
        let shown = terminal.shows("63 jobs: 3 open · 60 succeeded").await;
        assert_eq!(shown.matches("RUNNING").count(), 3, "{shown}");
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
        assert_eq!(guard(child.wait()).await.unwrap().code(), Some(130));
        let (lines, _) = terminal.finish();
        let text = lines.concat();
        // Whole names, each once.
        for name in &names[..60] {
            assert_eq!(text.matches(&format!("✔ {name} ")).count(), 1, "{name}: {lines:#?}");
        }
        assert!(lines.len() <= 60 + 3 + 1, "{lines:#?}");
    }
}

#[tokio::test]
async fn error_of_one_of_two_jobs_is_on_the_screen_while_the_other_runs() {
    let gone = Err(Status::not_found("no such job"));
    let gateway = open_gateway(vec![vec![gone], vec![response("running", "a")]]).await;
    let terminal = Terminal::new(24, 80);
    let child = terminal.start(&["watch", "immuta/x", "immuta/y"], &gateway, &[]);
    let shown = terminal.shows("2 jobs: 1 open · 1 with an error").await;
    assert!(shown.contains("error: immuta/x: NOT_FOUND: no such job"), "{shown}");
    assert!(shown.contains("immuta/y") && shown.contains("RUNNING"), "{shown}");
    drop(child);
}

#[tokio::test]
async fn recovery_removes_the_outage_from_the_board() {
    let event = |event| Ok(WatchJobResponse { event: Some(event), resume_token: "a".to_owned() });
    let now = std::time::SystemTime::now();
    let retry_time = Some((now + std::time::Duration::from_mins(50)).into());
    let cause = Some((&tonic::Status::unavailable("no answer")).into());
    let outage =
        || event(Event::Interruption(Interruption { cause: cause.clone(), observe_time: None, retry_time }));
    let gateway = open_gateway(vec![
        vec![response("running", "a"), outage()],
        vec![response("running", "a"), outage(), event(Event::Heartbeat(Heartbeat::default()))],
    ])
    .await;
    let terminal = Terminal::new(24, 80);
    let child = terminal.start(&["watch", "immuta/outage", "immuta/healed"], &gateway, &[]);
    let seconds = |contents: &str| {
        let (_, rest) = contents.split_once("next poll in ")?;
        rest.split_once(" s")?.0.parse::<u64>().ok()
    };
    let healed = |contents: &str| {
        let line =
            contents.lines().skip_while(|line| !line.contains("immuta/healed")).take(2).collect::<String>();
        (line.contains("RUNNING") && !line.contains("UNAVAILABLE")).then_some(())
    };
    let first = terminal.find(|contents| seconds(contents).filter(|_| healed(contents).is_some())).await;
    // It counts down.
    terminal.find(|contents| seconds(contents).filter(|seconds| *seconds < first)).await;
    drop(child);
}

#[tokio::test]
async fn plain_terminal_gets_lines_with_whole_names_and_no_escape_sequences() {
    for variable in [("TERM", "dumb"), ("NO_COLOR", "1")] {
        let gateway = Gateway::start(vec![
            vec![response("running", "a"), response("done", "b")],
            vec![response("done", "c")],
        ])
        .await;
        let terminal = Terminal::new(24, 80);
        let long = format!("immuta/{LONG}-{LONG}");
        let mut child = terminal.start(&["watch", &long, "immuta/y"], &gateway, &[variable]);
        assert_eq!(guard(child.wait()).await.unwrap().code(), Some(0));
        let (_, raw) = terminal.finish();
        assert!(!raw.contains('\x1b'), "{raw:?}");
        assert!(raw.contains(&format!("✔ {long}  SUCCEEDED")), "{raw}");
    }
}

#[tokio::test]
async fn board_of_one_job_keeps_its_row_until_its_command_has_ended() {
    let gateway = open_gateway(vec![vec![response("done", "a")]]).await;
    let dir = tempfile::tempdir().unwrap();
    let go_on = dir.path().join("go-on");
    let exec = format!("while ! test -e {}; do sleep 0.1; done", go_on.display());
    let terminal = Terminal::new(24, 80);
    let path = std::env::var("PATH").unwrap();
    let mut child = terminal.start(&["watch", "immuta/x", "--exec", &exec], &gateway, &[("PATH", &path)]);
    let shown = terminal.shows("--exec runs").await;
    assert!(shown.contains("immuta/x  SUCCEEDED"), "{shown}");
    std::fs::write(go_on, "").unwrap();
    assert_eq!(guard(child.wait()).await.unwrap().code(), Some(0));
    let (lines, _) = terminal.finish();
    assert!(!lines.iter().any(|line| line.contains("--exec runs")), "{lines:?}");
}
