//! Whether a cluster can be polled again: `POST /show/system/status`.
//!
//! Its record has a `status_map`, whose `system` is JSON in a string. A cluster that
//! is running while its queue of changes from the others drains does not know their
//! latest jobs yet. Where that is said, under `system` or beside it, is not
//! documented, so both places count.

use bytes::Bytes;
use http::{Request, Response};

use super::{
    super::{HealthCheck, json, json::Object, response},
    Kinetica, Outcome,
    avro::{self, Kind},
    messages,
};
use crate::job::{BackendFault, FaultKind};

const PATH: &str = "/show/system/status";
const RESPONSE: avro::Schema = &[("status_map", Kind::Map), ("info", Kind::Map)];

impl HealthCheck for Kinetica {
    fn health_request(&self) -> Request<Bytes> {
        self.post(PATH, None, &[])
    }

    fn read_health_body(&self, response: &Response<Bytes>) -> Result<(), BackendFault> {
        match self.unwrap_response(PATH, response)? {
            Outcome::Error(message) => Err(messages::cluster_fault(&message, None, response.status())
                .unwrap_or_else(|| response::rejected(&message, response.status()))),
            Outcome::Record(record) => {
                let record = record.and_then(|record| self.record_json(RESPONSE, record));
                read(&record.unwrap_or_default())
            }
        }
    }
}

fn read(record: &str) -> Result<(), BackendFault> {
    const UNREADABLE: FaultKind = FaultKind::Malformed { why: "it holds no system status" };
    let record = Object::parse(record.as_bytes()).and_then(Object::unambiguous);
    let status_map = record.as_ref().and_then(|record| record.get("status_map")).and_then(Object::of);
    let status_map = status_map.and_then(Object::unambiguous).ok_or(UNREADABLE)?;
    let system = json::plain(status_map.get("system").ok_or(UNREADABLE)?);
    let system = Object::parse(system.as_bytes()).and_then(Object::unambiguous).ok_or(UNREADABLE)?;
    let drains = [&system, &status_map].into_iter().filter_map(|map| map.get("ha_status"));
    let why = if system.text("status").as_deref() != Some("running") {
        "it is not running"
    } else if drains.map(json::plain).any(|status| status.contains("draining")) {
        "it is draining its queue"
    } else {
        return Ok(());
    };
    Err(FaultKind::Unavailable { why: why.to_owned() }.into())
}
