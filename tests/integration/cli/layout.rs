//! Text that is laid out to the width of the terminal, at 80 and at 160 columns.

use super::{
    terminal::{LONG, Terminal, open_gateway},
    *,
};
use crate::{harness::Backend, program::Program};

const SIZES: [(u16, u16); 2] = [(24, 80), (50, 160)];

/// Lines as the program writes them: a terminal would wrap those that are too long.
fn written(raw: &str) -> Vec<String> {
    console::strip_ansi_codes(raw).lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

/// Runs a command on a terminal, and returns its exit code and lines.
async fn run(size: (u16, u16), args: &[&str], server: &str) -> (Option<i32>, Vec<String>) {
    let terminal = Terminal::new(size.0, size.1);
    let mut child = terminal.start_at(args, server, &[]);
    let code = guard(child.wait()).await.unwrap().code();
    let (_, raw) = terminal.finish();
    (code, written(&raw))
}

fn assert_fits(lines: &[String], columns: u16) {
    for line in lines {
        assert!(console::measure_text_width(line) <= usize::from(columns), "{columns}: {line}");
    }
}

#[tokio::test]
async fn help_is_wrapped_to_the_terminal() {
    for size in SIZES {
        for command in ["watch", "jobs", "backends", "download", "simulate", "serve", "check"] {
            let (code, lines) = run(size, &[command, "--help"], "unused").await;
            assert_eq!(code, Some(0));
            assert_fits(&lines, size.1.min(100));
            assert!(lines.iter().any(|line| line == "Exit codes:"), "{lines:#?}");
        }
    }
}

#[tokio::test]
async fn ends_of_jobs_are_laid_out_without_loss() {
    let message = "no such column: sku in the file that the job has read from the bucket of yesterday, which has \
                   only the columns id, name, price, stock and supplier";
    for size in SIZES {
        let failed = || {
            let mut response = response("failed", "a").unwrap();
            let Some(Event::Status(status)) = &mut response.event else { panic!() };
            status.error = Some(JobError { message: message.to_owned(), ..Default::default() });
            vec![Ok(response)]
        };
        let gone = || vec![Err(Status::not_found(format!("there is no such job: {message}")))];
        let names = ["immuta/1".to_owned(), format!("immuta/{LONG}-{LONG}"), "immuta/gone".to_owned()];
        let gateway = open_gateway(vec![failed(), failed(), gone()]).await;
        let args: Vec<_> = ["watch"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let (code, lines) = run(size, &args, &gateway.address.to_string()).await;
        assert_eq!(code, Some(3), "{lines:#?}");
        // A name is never cut: it may be copied.
        for name in &names {
            assert!(lines.iter().any(|line| line.contains(&**name)), "{name}: {lines:#?}");
        }
        let others: Vec<_> = lines.iter().filter(|line| !line.contains(&names[1])).cloned().collect();
        assert_fits(&others, size.1);
        let text = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(text.matches(message).count(), 3, "{lines:#?}");

        // A single job has a block of details instead.
        let gateway = open_gateway(vec![failed()]).await;
        let (code, lines) = run(size, &["watch", "immuta/1"], &gateway.address.to_string()).await;
        assert_eq!(code, Some(1));
        assert_fits(&lines, size.1);
        let text = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(message), "{lines:#?}");
    }
}

#[tokio::test]
async fn pipe_gets_each_end_in_one_line() {
    let gateway = Gateway::start(vec![vec![response("failed", "a")], vec![response("done", "b")]]).await;
    let long = format!("immuta/{LONG}-{LONG}");
    let ran = gateway.run(&["watch", &long, "immuta/y", "-o", "table"]).await;
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.out);
    assert!(
        lines.iter().any(|line| line.contains(&*long) && line.ends_with("no such column")),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn tables_fit_and_an_empty_one_says_so() {
    let simulator = crate::harness::simulator(jobwatch::simulators::Vendor::Immuta).await;
    let name = "immuta-of-the-production-tenant-in-frankfurt";
    let down = Backend::dead(jobwatch::simulators::Vendor::Immuta).await.named(name);
    let program = Program::start([Backend::of(&simulator), down], "info").await;
    let server = program.address();
    for size in SIZES {
        let (code, lines) = run(size, &["jobs"], server).await;
        assert_eq!((code, &*lines.concat()), (Some(0), "The gateway polls or retains no jobs."));
        let (code, lines) = run(size, &["jobs", name], server).await;
        assert_eq!(
            (code, &*lines.concat()),
            (Some(0), &*format!("The gateway polls or retains no jobs of {name}."))
        );
    }
    // Makes an error for the last column.
    let job = format!("{name}/{LONG}");
    let args = ["get", &*job, "--wait", "1s", "--server", server];
    guard(jobwatch(&args).output()).await.unwrap();
    for size in SIZES {
        let (code, lines) = run(size, &["backends"], server).await;
        assert_eq!(code, Some(0));
        assert_fits(&lines, size.1);
        assert!(lines.iter().any(|line| line.starts_with(name)), "{lines:#?}");
        assert!(lines.concat().contains("last answer") || lines.concat().contains("refused"), "{lines:#?}");
    }
    let piped =
        Ran::of(&guard(jobwatch(&["jobs", "-o", "json", "--server", server]).output()).await.unwrap());
    assert_eq!((piped.code, &*piped.out, &*piped.err), (Some(0), "[]\n", ""));
}

#[tokio::test]
async fn failed_list_is_an_object_in_a_json_format() {
    let gateway = Gateway::start(Vec::new()).await;
    for command in ["jobs", "backends"] {
        for output in [&["-o", "json"][..], &["-o", "jsonl"], &["--json"]] {
            let ran = gateway.run(&[&[command], output].concat()).await;
            assert_eq!((ran.code, &*ran.err), (Some(3), ""), "{command}");
            assert!(ran.out.contains("\"code\"") && ran.out.contains("not scripted"), "{}", ran.out);
        }
        let ran = gateway.run(&[command, "-o", "name"]).await;
        assert_eq!((ran.code, &*ran.out), (Some(3), ""), "{}", ran.err);
        assert!(
            ran.err.starts_with(&format!("error: {command}: UNIMPLEMENTED: not scripted")),
            "{}",
            ran.err
        );
    }
}
