//! The adapter of a definition, as a whole.

use toml::Table;

use super::{backend, cases::Cases, *};

/// A small definition: the sections that are given, then those that say how a job is read, then
/// the others that are given.
macro_rules! small_definition {
    ($before:literal) => {
        small_definition!($before, "")
    };
    ($before:literal, $after:literal) => {
        concat!(
            "\nformat = 1\nname = \"x\"\nversion = \"1.0.0\"\ntitle = \"X\"\ndocs = \"https://x.example/docs\"\n",
            $before,
            "\n[status]\nid = \"job.id\"\nword = \"job.status\"\n",
            "[states]\nSUCCEEDED = [\"done\"]\nFAILED = [\"broken\"]\n",
            "[[faults]]\nstatus = 404\nis = \"not_found\"\n",
            $after
        )
    };
}
pub(crate) use small_definition;

mod cases;
mod definitions;
mod effects;
mod graphql_errors;
mod hints;
mod hostile;
mod in_text;
mod nothing;
mod parameters;
mod reasons;
pub(super) mod reference;
mod requests;

pub(in crate::vendors) const IMMUTA: &str = include_str!("tests/immuta.toml");
pub(in crate::vendors) const DATASAUR: &str = include_str!("tests/datasaur.toml");
pub(in crate::vendors) const CLARET: &str = include_str!("tests/claret.toml");
pub(in crate::vendors) const KINETICA: &str = include_str!("tests/kinetica.toml");

/// The adapter of a definition at this address, for a backend with these keys, in which a
/// secret is written as a text.
pub(in crate::vendors) fn declared(definition: &str, base_url: &str, keys: &str) -> Declared {
    let definition = Arc::new(Definition::parse(definition).unwrap_or_else(|error| panic!("{error}")));
    let mut keys: Table = toml::from_str(keys).unwrap();
    let credentials = keys.get("credentials").and_then(toml::Value::as_table).cloned();
    let chosen = match &credentials {
        Some(credentials) => {
            backend::choose(&definition, Some(credentials)).unwrap_or_else(|problems| panic!("{problems:?}"))
        }
        None => backend::without_credentials(),
    };
    if let (Some((secret, _)), Some(credentials)) =
        (&chosen.secret, keys.get_mut("credentials").and_then(toml::Value::as_table_mut))
    {
        credentials.remove(secret);
    }
    let config = backend::read(&definition, &chosen, &keys).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.adapter(&base_url.parse().unwrap(), NonZeroUsize::MAX)
}

/// The shipped definition of this name.
pub(in crate::vendors) fn shipped(name: &str) -> &'static str {
    Shipped::find(name).unwrap().definition
}

#[test]
fn cases_of_shipped_definitions_pass_and_cover_them() {
    for shipped in SHIPPED {
        let definition = Arc::new(
            Definition::parse(shipped.definition).unwrap_or_else(|error| panic!("{}\n{error}", shipped.name)),
        );
        let cases = Cases::parse(definition, shipped.cases)
            .unwrap_or_else(|error| panic!("{} cases\n{error}", shipped.name));
        let report = cases.run();
        assert!(report.is_good(), "{}: {report:#?}", shipped.name);
    }
}
