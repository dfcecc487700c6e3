//! The adapter of a definition, as a whole.

use super::{cases::Cases, *};

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
