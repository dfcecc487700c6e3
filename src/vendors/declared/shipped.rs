//! The definitions that are part of the program.

/// A definition that is part of the program, with its cases.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// As configurations name it.
    pub name: &'static str,
    /// The definition's text.
    pub definition: &'static str,
    /// The text of its cases.
    pub cases: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(Shipped {
            name: $name,
            definition: include_str!(concat!("../../../vendors/", $name, "/definition.toml")),
            cases: include_str!(concat!("../../../vendors/", $name, "/cases.toml")),
        }),*]
    };
}

/// All of them, by name.
pub const SHIPPED: &[Shipped] = shipped!(
    "airbyte",
    "airflow",
    "anthropic-batches",
    "azure-arm",
    "bigquery",
    "census",
    "circleci",
    "collibra",
    "dagster",
    "databricks",
    "dbt-cloud",
    "druid",
    "elasticsearch-tasks",
    "fivetran",
    "github-actions",
    "gitlab-pipelines",
    "google-operations",
    "hcp-terraform-runs",
    "hightouch",
    "hubspot-exports",
    "huggingface-jobs",
    "jenkins",
    "livy-batches",
    "livy-statements",
    "looker",
    "matillion",
    "openai-batch",
    "power-bi",
    "prefect",
    "replicate",
    "salesforce-bulk",
    "shopify-bulk",
    "slurm",
    "snowflake-sql",
    "spark-history",
    "stripe-reports",
);

impl Shipped {
    /// The definition of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SHIPPED.iter().find(|shipped| shipped.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::{KINDS, declared::Definition};

    #[test]
    fn shipped_definition_has_the_name_of_its_folder() {
        assert!(SHIPPED.is_sorted_by(|one, other| one.name < other.name));
        for shipped in SHIPPED {
            let definition = Definition::parse(shipped.definition)
                .unwrap_or_else(|error| panic!("{}: {error}", shipped.name));
            assert_eq!(definition.name, shipped.name);
            assert!(KINDS.iter().all(|kind| kind.key != shipped.name));
        }
    }
}
