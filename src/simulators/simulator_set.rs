//! Simulators of all four vendors, with jobs for the demo.

use std::{io, time::Duration};

use super::{
    Simulator, Vendor, credentials,
    plan::{Category, Content, End, Outcome, Plan},
};

/// One running simulator of each vendor.
#[derive(Debug)]
pub struct SimulatorSet {
    immuta: Simulator,
    kinetica: Simulator,
    claret: Simulator,
    datasaur: Simulator,
}

/// A job that the demo started.
#[derive(Clone, Debug)]
pub struct DemoJob {
    /// Key of the backend in [`SimulatorSet::config`].
    pub backend: &'static str,
    /// The vendor's id of the job.
    pub id: String,
    /// Kinetica's tag.
    pub tag: Option<String>,
    /// What the job shows, for people: "ends with the vendor's message".
    pub title: &'static str,
}

impl SimulatorSet {
    /// Starts all four on free ports of 127.0.0.1; they end when this is dropped.
    pub async fn start() -> io::Result<Self> {
        Ok(Self {
            immuta: Simulator::start(Vendor::Immuta).await?,
            kinetica: Simulator::start(Vendor::Kinetica).await?,
            claret: Simulator::start(Vendor::Claret).await?,
            datasaur: Simulator::start(Vendor::Datasaur).await?,
        })
    }

    /// The simulator of this vendor.
    pub fn simulator(&self, vendor: Vendor) -> &Simulator {
        match vendor {
            Vendor::Immuta => &self.immuta,
            Vendor::Kinetica => &self.kinetica,
            Vendor::Claret => &self.claret,
            Vendor::Datasaur => &self.datasaur,
        }
    }

    /// A configuration file, in TOML, of a gateway for these vendors.
    pub fn config(&self) -> String {
        let backends = Vendor::ALL.map(|vendor| self.simulator(vendor).config());
        format!("allow_inline_secrets = true\n{}", backends.concat())
    }

    /// Starts a few jobs at each vendor that end in every way within 5 to 60 s.
    pub fn start_demo_jobs(&self) -> Vec<DemoJob> {
        let started = Vendor::ALL.map(|vendor| {
            let jobs = self.simulator(vendor).start_demo_jobs().into_iter();
            jobs.map(move |(job, title)| DemoJob { backend: vendor.name(), id: job.id, tag: job.tag, title })
        });
        started.into_iter().flatten().collect()
    }
}

impl Simulator {
    /// The backend of a gateway's configuration, in TOML, that polls this simulator.
    pub fn config(&self) -> String {
        let (name, url) = (self.vendor(), self.base_url());
        let special = match self.vendor() {
            Vendor::Immuta => format!("credentials = {{ api_key = {:?} }}\n", credentials::IMMUTA_API_KEY),
            Vendor::Kinetica => format!(
                "credentials = {{ username = {:?}, password = {:?} }}\n",
                credentials::KINETICA_USER,
                credentials::KINETICA_PASSWORD
            ),
            Vendor::Claret => format!(
                "tenant = {:?}\ncredentials = {{ email = {:?}, password = {:?} }}\n",
                credentials::CLARET_TENANT,
                credentials::CLARET_EMAIL,
                credentials::CLARET_PASSWORD
            ),
            Vendor::Datasaur => format!(
                "credentials = {{ client_id = {:?}, client_secret = {:?} }}\n",
                credentials::DATASAUR_CLIENT_ID,
                credentials::DATASAUR_CLIENT_SECRET
            ),
        };
        format!(
            "\n[backends.{name}]\nvendor = \"{name}\"\nbase_url = \"{url}\"\n{special}\
             \n[backends.{name}.poll]\nmin_interval = \"500ms\"\nmax_interval = \"2s\"\n"
        )
    }
}

/// The demo's jobs of one vendor, each with its title.
pub(super) fn demo_plans(vendor: Vendor) -> Vec<(&'static str, Plan)> {
    match vendor {
        Vendor::Immuta => immuta(),
        Vendor::Kinetica => kinetica(),
        Vendor::Claret => claret(),
        Vendor::Datasaur => datasaur(),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn json(text: &'static str) -> Outcome {
    Outcome::json(text).expect("the demo's results are JSON")
}

fn immuta() -> Vec<(&'static str, Plan)> {
    let policies = json(r#"{"dataSources":12,"policiesApplied":48}"#);
    let timeout = "Connection to the warehouse timed out";
    vec![
        (
            "will succeed with a JSON result",
            Plan::succeeds(policies).queued_for(seconds(2)).running_for(seconds(8)),
        ),
        (
            "will fail once, then succeed",
            Plan::succeeds(Outcome::Text("24 tables refreshed".to_owned()))
                .running_for(seconds(24))
                .retried_after(timeout),
        ),
        ("will be cancelled", Plan::is_cancelled(Duration::ZERO).running_for(seconds(13))),
        ("will expire", Plan::expires().running_for(seconds(40))),
    ]
}

fn kinetica() -> Vec<(&'static str, Plan)> {
    let table = json(r#"{"table_name":"sales.orders","rows_affected":9007199254740993,"info":{}}"#);
    let duplicate = "Column 'region' already exists in table 'sales.orders' (S/SDc:1513)";
    vec![
        ("will succeed with a JSON result", Plan::succeeds(table).running_for(seconds(10))),
        (
            "will succeed with a binary result",
            Plan::succeeds(Outcome::Binary(vec![0x0c, b'o', b'r', b'd', b'e', b'r', b's', 0x00, 0xff]))
                .running_for(seconds(50)),
        ),
        (
            "will fail with the database's message",
            Plan::fails(duplicate).running_for(seconds(6)).kind("/alter/table/columns"),
        ),
        (
            "will be cancelled, but run six more seconds",
            Plan::is_cancelled(seconds(6)).running_for(seconds(12)).kind("/execute/sql"),
        ),
    ]
}

fn claret() -> Vec<(&'static str, Plan)> {
    let steps = ["upload", "normalize", "validate", "match", "transform", "write", "index", "notify"];
    let csv = |text: &'static str| Content::Bytes(text.into());
    let rows = csv("sku,quantity\nA-1,40\nA-2,7\n");
    let with_input = |plan: Plan| {
        let plan = plan.steps(steps).file(Category::Input, "inventory_untouched.csv", rows.clone());
        plan.file(Category::Staging, "inventory_staging.csv", rows.clone())
    };
    vec![
        (
            "will succeed after eight steps",
            with_input(Plan::default().queued_for(seconds(3)).running_for(seconds(32))).file(
                Category::Output,
                "inventory_final.csv",
                rows.clone(),
            ),
        ),
        (
            "will succeed in part, with an error file",
            with_input(Plan::default().running_for(seconds(16)))
                .file(Category::Output, "inventory_final.csv", csv("sku,quantity\nA-1,40\n"))
                .file(
                    Category::Errors,
                    "inventory_errors.csv",
                    csv("row,error\n2,quantity is not a number\n"),
                ),
        ),
        (
            "will fail with an error file",
            with_input(Plan::fails("no valid rows").running_for(seconds(9))).file(
                Category::Errors,
                "inventory_errors.csv",
                csv("row,error\n1,unknown sku\n"),
            ),
        ),
    ]
}

fn datasaur() -> Vec<(&'static str, Plan)> {
    let labels = json(r#"{"labels":318,"model":"token-classifier","confidence":0.91}"#);
    let mut late = Plan::default().running_for(seconds(14)).appears_after(seconds(4));
    late.end = End::Success(json(r#"{"url":"https://example.com/export.zip"}"#));
    vec![
        (
            "will succeed with a JSON result",
            Plan::succeeds(labels).queued_for(seconds(5)).running_for(seconds(20)),
        ),
        ("unknown for its first four seconds", late),
        (
            "will fail with the vendor's error",
            Plan::fails("Custom model endpoint answered 502").running_for(seconds(11)),
        ),
        ("will succeed after a minute", Plan::default().running_for(seconds(60))),
    ]
}
