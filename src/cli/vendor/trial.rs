//! `jobwatch vendor try`: one poll of one job at the real vendor.

use std::{fmt::Write as _, io::Write};

use super::source::find;
use crate::{
    cli::{
        Configuration,
        exit::{Exit, Failure},
    },
    config::{Config, Environment, InvalidConfig, Problem},
    server::{self, Trial, TrialFailure},
    vendors::{
        Reading,
        declared::{
            Definition, Shipped,
            backend::{WayKeys, sign_ins},
        },
    },
};

/// The name of the backend where no configuration has it.
const BACKEND: &str = "try";

/// What to do with a vendor that has no definition.
const BUILT_IN: &str =
    "write a backend for it into a configuration, and test that with jobwatch check --config FILE --connect";

/// What to try, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name of a shipped definition, or the path of one.
    #[arg(value_name = "NAME|FILE", required_unless_present = "backend")]
    name: Option<String>,

    /// The id of the job.
    #[arg(long, value_name = "ID")]
    job: String,

    /// Address of the vendor.
    #[arg(long, value_name = "URL", required_unless_present = "backend")]
    base_url: Option<String>,

    /// A parameter of the definition; can be repeated.
    #[arg(long = "param", value_name = "KEY=VALUE")]
    params: Vec<String>,

    /// A key of credentials; can be repeated. A secret is `KEY=env:NAME` or `KEY=file:PATH`;
    /// other keys are KEY=TEXT.
    #[arg(long = "credential", value_name = "KEY=VALUE")]
    credentials: Vec<String>,

    /// Another origin at which the definition asks for tokens, and gets the secret; can be
    /// repeated.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allow_origins: Vec<String>,

    /// PEM file of the authorities that the vendor's certificate may be from, beside those of
    /// the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,

    /// A backend of the configuration, in place of a definition with address, parameters and
    /// credentials.
    #[arg(long, value_name = "BACKEND", requires = "config", conflicts_with_all = ["name", "base_url", "params", "credentials", "allow_origins", "ca"])]
    backend: Option<String>,

    #[command(flatten)]
    configuration: Configuration,
}

impl Args {
    pub(super) async fn run(self, out: &mut impl Write) -> Result<Exit, Failure> {
        let backend = self.backend.as_deref().unwrap_or(BACKEND);
        let config = if self.backend.is_some() {
            self.configuration.load()?
        } else {
            Config::parse(&self.text()?, Environment::of_process()?).map_err(as_options)?
        };
        if !config.backends.iter().any(|known| *known.name == *backend) {
            let known: Vec<&str> = config.backends.iter().map(|known| &*known.name).collect();
            let text =
                format!("--backend {backend} is not in the configuration; write one of {}", known.join(", "));
            return Err(Failure::Usage(text));
        }
        let has_options = self.backend.is_none();
        let worded = |text: String| if has_options { options_of(&text) } else { text };
        let trial = server::try_job(&config, backend, &self.job).await.map_err(|failure| match failure {
            TrialFailure::Usage(text) => Failure::Usage(worded(text)),
            TrialFailure::Fault(text) => Failure::Fault(worded(text)),
            TrialFailure::NoAnswer(text) => Failure::Connect(worded(text)),
        })?;
        write!(out, "{}", report(&trial))?;
        Ok(if trial.is_understood { Exit::Succeeded } else { Exit::Unsuccessful })
    }

    /// A configuration with one backend.
    fn text(&self) -> Result<String, Failure> {
        let name = self.name.as_deref().unwrap_or_default();
        let (file, source_text) = find(name, BUILT_IN)?;
        let definition = Definition::parse(&source_text).map_err(|invalid| {
            let problems = invalid.problems.iter().map(|problem| format!("{}:{problem}", file.display()));
            let problems: Vec<String> = problems.collect();
            Failure::Usage(format!("the definition has problems\n{}", problems.join("\n")))
        })?;
        let mut backend = toml::Table::new();
        let mut put = |key: &str, value: toml::Value| drop(backend.insert(key.to_owned(), value));
        if Shipped::find(name).is_some() {
            put("vendor", name.into());
        } else {
            put("vendor_file", file.display().to_string().into());
        }
        put("base_url", self.base_url.clone().unwrap_or_default().into());
        let pairs = |option: &str, pairs: &[String]| -> Result<Vec<(String, String)>, Failure> {
            let pair = |pair: &String| match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => Err(Failure::Usage(format!("--{option} has no =; write --{option} KEY=VALUE"))),
            };
            pairs.iter().map(pair).collect()
        };
        let params = pairs("param", &self.params)?;
        if !params.is_empty() {
            put(
                "params",
                params
                    .into_iter()
                    .map(|(key, value)| (key, toml::Value::from(value)))
                    .collect::<toml::Table>()
                    .into(),
            );
        }
        let credentials = pairs("credential", &self.credentials)?;
        check_credentials(&definition, &credentials)?;
        check_origins(&definition, &self.allow_origins)?;
        if !credentials.is_empty() {
            let table: toml::Table =
                credentials.into_iter().map(|(key, value)| (key, source(&value))).collect();
            put("credentials", table.into());
        }
        if !self.allow_origins.is_empty() {
            put("allow_origins", self.allow_origins.clone().into());
        }
        if let Some(ca) = &self.ca {
            put("ca", ca.clone().into());
        }
        let backends = toml::Table::from_iter([(BACKEND.to_owned(), backend.into())]);
        let whole = toml::Table::from_iter([("backends".to_owned(), toml::Value::from(backends))]);
        Ok(whole.to_string())
    }
}

/// Problems with the options that stand for keys.
fn as_options(InvalidConfig { problems }: InvalidConfig) -> Failure {
    let option = |Problem { subject, text }: Problem| {
        let Some(key) = subject.strip_prefix("backends.try.") else { return Problem { subject, text } };
        let (first, rest) = key.split_once('.').unwrap_or((key, ""));
        let subject = match first.split('[').next().unwrap_or(first) {
            "params" => format!("--param {rest}"),
            "credentials" => format!("--credential {rest}"),
            "allow_origins" => "--allow-origin".to_owned(),
            "vendor" | "vendor_file" => "NAME|FILE".to_owned(),
            known @ ("base_url" | "ca") => format!("--{}", known.replace('_', "-")),
            _ => subject.clone(),
        };
        let text = text.replace(&format!("write {rest} = "), &format!("write --param {rest}="));
        Problem { subject: subject.trim_end().to_owned(), text: options_of(&text) }
    };
    Failure::Config(InvalidConfig { problems: problems.into_iter().map(option).collect() })
}

/// A text with options in place of the keys that they stand for.
fn options_of(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some((before, rest)) = text.split_once("write allow_origins = [\"")
        && let Some((origin, after)) = rest.split_once("\"]")
    {
        text = format!(
            "{before}write --allow-origin {origin} if it may get the secret, or name a backend that allows it with \
             --config FILE --backend NAME{after}"
        );
    }
    for (key, option) in [
        ("write ca = \"FILE\"", "write --ca FILE"),
        ("base_url", "--base-url"),
        (
            "raise poll.max_response_bytes",
            "name a backend with a larger poll.max_response_bytes with --config FILE --backend NAME",
        ),
        ("raise poll.timeout", "name a backend with a longer poll.timeout with --config FILE --backend NAME"),
        ("backends.try.", ""),
    ] {
        text = text.replace(key, option);
    }
    text
}

/// That every origin is one where the definition asks for tokens.
fn check_origins(definition: &Definition, given: &[String]) -> Result<(), Failure> {
    let known = definition.token_origins();
    let mut seen: Vec<&str> = Vec::new();
    for origin in given {
        let origin = origin.trim_end_matches('/');
        let name = &definition.name;
        let why = if seen.contains(&origin) {
            "stands there twice; keep one".to_owned()
        } else if known.iter().any(|known| known == origin) {
            seen.push(origin);
            continue;
        } else if known.is_empty() {
            format!(
                "is of no use: {name} asks for tokens at --base-url alone, and no file is downloaded here"
            )
        } else {
            format!("is no origin where {name} asks for tokens; write {}", known.join(" or "))
        };
        return Err(Failure::Usage(format!("--allow-origin {origin} {why}")));
    }
    Ok(())
}

/// That the credentials have a secret of the definition's, and not in the command line itself.
fn check_credentials(definition: &Definition, given: &[(String, String)]) -> Result<(), Failure> {
    let ways = sign_ins(definition);
    let is_secret = |key: &str| {
        ways.iter().any(|way| way.secret == key || way.second_secret.is_some_and(|second| second == key))
    };
    let is_literal = |value: &str| !value.starts_with("env:") && !value.starts_with("file:");
    let shown = given.iter().find(|(key, value)| is_secret(key) && is_literal(value));
    let has_secret = given.iter().any(|(key, _)| ways.iter().any(|way| way.secret == key));
    let options = || {
        let options = ways.iter().map(|WayKeys { secret, fields, .. }| {
            let fields = fields.iter().map(|key| format!("--credential {key}=TEXT"));
            let all: Vec<String> = fields.chain([format!("--credential {secret}=env:NAME")]).collect();
            all.join(" ")
        });
        options.collect::<Vec<_>>().join(", or ")
    };
    let name = &definition.name;
    let text = match shown {
        Some((key, _)) => format!(
            "--credential {key} holds the secret itself, which others can see; write {key}=env:NAME or {key}=file:PATH"
        ),
        None if has_secret => return Ok(()),
        None if !given.is_empty() && ways.is_empty() => {
            format!("--credential is of no use: {name} signs in without a secret; leave it out")
        }
        None if !given.is_empty() => format!("--credential names no secret of {name}; write {}", options()),
        None if !definition.needs_no_secret() => format!("--credential is missing; write {}", options()),
        _ => return Ok(()),
    };
    Err(Failure::Usage(text))
}

/// Where a key of credentials comes from, as the configuration writes it.
fn source(value: &str) -> toml::Value {
    for kind in ["env", "file"] {
        if let Some(name) = value.strip_prefix(kind).and_then(|rest| rest.strip_prefix(':')) {
            return toml::Table::from_iter([(kind.to_owned(), toml::Value::from(name))]).into();
        }
    }
    value.into()
}

fn report(trial: &Trial) -> String {
    let Trial { request, response, readings, is_understood } = trial;
    let mut text = "Request\n".to_owned();
    for line in request {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "\nAnswer\n  {response}\n\nHow it is read");
    let width = |of: fn(&Reading) -> &String| {
        readings.iter().map(|reading| of(reading).chars().count().min(44)).max()
    };
    let (keys, places) =
        (width(|reading| &reading.key).unwrap_or(0), width(|reading| &reading.from).unwrap_or(0));
    for Reading { key, from, found, lines, .. } in readings {
        let found = found.as_deref().unwrap_or("absent");
        let _ = writeln!(text, "  {key:keys$}  {from:places$}  {found}");
        for line in lines {
            let _ = writeln!(text, "      {line}");
        }
    }
    let verdict = if *is_understood { "a status" } else { "no status with a known word" };
    text + "\nThe answer is read as " + verdict + ".\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_that_is_no_secret_of_the_definition_names_what_to_write() {
        let definition = Definition::parse(Shipped::find("databricks").unwrap().definition).unwrap();
        let refused = |key: &str, value: &str| match check_credentials(
            &definition,
            &[(key.to_owned(), value.to_owned())],
        ) {
            Err(Failure::Usage(text)) => text,
            _ => panic!("{key} is taken"),
        };
        let text = refused("token", "env:T");
        assert!(
            text.contains("names no secret of databricks; write --credential bearer=env:NAME, or"),
            "{text}"
        );
        let text = refused("bearer", "s3cret");
        assert!(
            text.contains("write bearer=env:NAME or bearer=file:PATH") && !text.contains("s3cret"),
            "{text}"
        );
        let given = [("bearer".to_owned(), "env:T".to_owned())];
        assert!(check_credentials(&definition, &given).is_ok());
        let Err(Failure::Usage(text)) = check_credentials(&definition, &[]) else { panic!() };
        assert_eq!(
            text,
            "--credential is missing; write --credential bearer=env:NAME, or --credential client_id=TEXT \
             --credential client_secret=env:NAME"
        );
    }
}
