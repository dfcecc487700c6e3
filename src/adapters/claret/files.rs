//! The files of an import: paths by category.

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use crate::{
    adapters::json::{self, Object},
    job::Artifact,
};

/// The documented categories in the order in which a job fills them, then any
/// other in document order.
pub(super) fn artifacts(files: &RawValue) -> Vec<Artifact> {
    const ORDER: [&str; 4] = ["input", "staging", "output", "errors"];
    let Some(files) = Object::of(files) else { return Vec::new() };
    let mut categories: Vec<_> = files.members().collect();
    categories.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));

    let (mut counts, mut taken) = (HashMap::<String, usize>::new(), HashSet::new());
    let mut artifacts = Vec::new();
    for (category, paths) in categories {
        for uri in json::elements(paths).into_iter().filter_map(json::text).filter(|uri| !uri.is_empty()) {
            let file_name = file_name(&uri).to_owned();
            let name = format!("{category}/{file_name}");
            let count = counts.entry(name.clone()).or_default();
            let id = loop {
                *count += 1;
                let id = if *count == 1 { name.clone() } else { format!("{name}#{count}") };
                if taken.insert(id.clone()) {
                    break id;
                }
            };
            artifacts.push(Artifact { id, category: category.to_owned(), file_name, vendor_uri: uri });
        }
    }
    artifacts
}

/// The last segment of the path, without a query.
fn file_name(uri: &str) -> &str {
    let path = uri.split('?').next().unwrap_or(uri);
    path.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or(uri)
}
