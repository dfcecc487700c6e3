//! Every target on its seeds and on mutations of them. The numbers drawn are the
//! same in every run; JOBWATCH_FUZZ_SEED draws others.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

/// As many as take about a second without optimisation.
const ROUNDS: u32 = 25_000;
const LONGEST: usize = 4096;

/// The same of a target that starts engines, and of those that compile definitions or
/// evaluate expressions.
const ROUNDS_OF_ENGINES: u32 = ROUNDS / 10;
const ROUNDS_OF_DEFINITIONS: u32 = ROUNDS / 20;
const ROUNDS_OF_EXPRESSIONS: u32 = ROUNDS / 5;

/// What random bytes would hardly ever make.
const WORDS: [&[u8]; 24] = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"a\"",
    b"\"7\"",
    b"7",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"\xff",
    b"\xed\xa0\x80",
    b"[[[[",
    b"{\"id\":",
    b"\"status\":",
    b"\"error\":",
    b"\"message\":",
    b"\"errors\":",
    b"\"state\":[",
    b"NaN",
    b",",
];

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    if name == "declared" {
        seeds.extend(declared::seeds());
    }
    seeds
}

fn mutated(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = seeds.choose(random).unwrap().clone();
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..32)).min(input.len());
        match random.random_range(0..7) {
            0 if at < input.len() => input[at] = random.random(),
            1 => input.insert(at, random.random()),
            2 => drop(input.splice(at..at, WORDS.choose(random).unwrap().iter().copied())),
            3 => drop(input.splice(at..end, WORDS.choose(random).unwrap().iter().copied())),
            4 => drop(input.drain(at..end)),
            5 => {
                let again = input[at..end].to_vec();
                let to = random.random_range(0..=input.len());
                input.splice(to..to, again);
            }
            _ => {
                let other = seeds.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// Runs one target, and says on failure how to see it again.
fn feed(name: &str) {
    let seed = std::env::var("JOBWATCH_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let (seeds, mut random) = (seeds(name), StdRng::seed_from_u64(seed));
    assert!(!seeds.is_empty());
    let rounds = match name {
        "session_messages" => ROUNDS_OF_ENGINES,
        "definition" => ROUNDS_OF_DEFINITIONS,
        "declared" => ROUNDS_OF_EXPRESSIONS,
        _ => ROUNDS,
    };
    let mutations = (0..rounds).map(|_| mutated(&seeds, &mut random));
    for input in seeds.clone().into_iter().chain(mutations) {
        let held = catch_unwind(AssertUnwindSafe(|| target(&input))).is_ok();
        assert!(held, "{name} with JOBWATCH_FUZZ_SEED={seed} fails on b\"{}\"", input.escape_ascii());
    }
}

/// Names a test for each target, so that they run side by side.
macro_rules! each_target_holds_for_any_bytes {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            feed(stringify!($name));
        })+

        #[test]
        fn every_target_is_fed_here_and_by_cargo_fuzz() {
            let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/Cargo.toml")).unwrap();
            let fed = [$(stringify!($name)),+];
            assert_eq!(TARGETS.map(|(name, _)| name), fed);
            for name in fed {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

each_target_holds_for_any_bytes!(
    immuta,
    kinetica,
    kinetica_binary,
    claret,
    datasaur,
    immuta_token,
    claret_token,
    datasaur_token,
    resume_token,
    job_ref,
    requested_wait,
    content_coding,
    session_messages,
    definition,
    declared,
);
