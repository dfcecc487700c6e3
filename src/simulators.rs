//! The four vendors on loopback, for the demo and the tests. They imitate the
//! wire behaviour and know nothing of the adapters.

use std::io;

/// One running simulator of each vendor.
#[derive(Debug)]
pub struct Fleet;

/// A job that the demo started.
#[derive(Clone, Debug)]
pub struct DemoJob {
    /// Key of the backend in [`Fleet::config`].
    pub backend: &'static str,
    /// The vendor's id of the job.
    pub id: String,
    /// Kinetica's tag.
    pub tag: Option<String>,
    /// What the job shows, for people: "ends with the vendor's message".
    pub title: &'static str,
}

impl Fleet {
    /// Starts all four on free ports of 127.0.0.1; they end when this is dropped.
    pub async fn start() -> io::Result<Self> {
        todo!()
    }

    /// A configuration file, in TOML, of a gateway for these vendors.
    pub fn config(&self) -> String {
        todo!()
    }

    /// Starts a few jobs at each vendor that end in every way within 5 to 60 s.
    pub fn start_demo_jobs(&self) -> Vec<DemoJob> {
        todo!()
    }
}
