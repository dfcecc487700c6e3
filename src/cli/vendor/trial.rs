//! `jobwatch vendor try`: one poll of one job at the real vendor.

use std::{fmt::Write as _, io::Write};

use super::definition_file;
use crate::{
    cli::{
        Configuration,
        exit::{Exit, Failure},
    },
    config::{Config, Environment},
    server::{self, Trial},
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

    /// A backend of the configuration, in place of a definition with address, parameters and
    /// credentials.
    #[arg(long, value_name = "BACKEND", requires = "config", conflicts_with_all = ["name", "base_url", "params", "credentials"])]
    backend: Option<String>,

    #[command(flatten)]
    configuration: Configuration,
}

impl Args {
    pub(super) async fn run(self, out: &mut impl Write) -> Result<Exit, Failure> {
        let backend = self.backend.as_deref().unwrap_or(BACKEND);
        let config = match &self.backend {
            Some(_) => self.configuration.load()?,
            None => Config::parse(&self.text()?, Environment::of_process()?)?,
        };
        if !config.backends.iter().any(|known| *known.name == *backend) {
            let known: Vec<&str> = config.backends.iter().map(|known| &*known.name).collect();
            let text =
                format!("--backend {backend} is not in the configuration; write one of {}", known.join(", "));
            return Err(Failure::Usage(text));
        }
        let trial = server::try_job(&config, backend, &self.job).await.map_err(Failure::Connect)?;
        write!(out, "{}", report(&trial))?;
        Ok(if trial.is_understood { Exit::Succeeded } else { Exit::Unsuccessful })
    }

    /// A configuration with one backend.
    fn text(&self) -> Result<String, Failure> {
        let name = self.name.as_deref().unwrap_or_default();
        let mut backend = toml::Table::new();
        let mut put = |key: &str, value: toml::Value| drop(backend.insert(key.to_owned(), value));
        if Shipped::find(name).is_some() {
            put("vendor", name.into());
        } else {
            put("vendor_file", definition_file(name.as_ref()).display().to_string().into());
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
        if let Ok(definition) = super::source_of(name).map(|(_, text)| Definition::parse(&text)) {
            definition.map_or(Ok(()), |definition| check_credentials(&definition, &credentials))?;
        }
        if !credentials.is_empty() {
            let table: toml::Table =
                credentials.into_iter().map(|(key, value)| (key, source(&value))).collect();
            put("credentials", table.into());
        }
        let backends = toml::Table::from_iter([(BACKEND.to_owned(), backend.into())]);
        let whole = toml::Table::from_iter([("backends".to_owned(), toml::Value::from(backends))]);
        Ok(whole.to_string())
    }
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
    let text = match shown {
        Some((key, _)) => format!(
            "--credential {key} holds the secret itself, which others can see; write {key}=env:NAME or {key}=file:PATH"
        ),
        None if !has_secret && !given.is_empty() => {
            let options = ways.iter().map(|WayKeys { secret, fields, .. }| {
                let fields = fields.iter().map(|key| format!("--credential {key}=TEXT"));
                let all: Vec<String> = fields.chain([format!("--credential {secret}=env:NAME")]).collect();
                all.join(" ")
            });
            let options: Vec<String> = options.collect();
            format!("--credential names no secret of {}; write {}", definition.name, options.join(", or "))
        }
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
    for Reading { key, from, found } in readings {
        let found = found.as_deref().unwrap_or("absent");
        let _ = writeln!(text, "  {key:keys$}  {from:places$}  {found}");
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
        assert!(
            check_credentials(&definition, &given).is_ok() && check_credentials(&definition, &[]).is_ok()
        );
    }
}
