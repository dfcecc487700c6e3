//! Definitions that say the same as the adapters of built-in vendors.

use std::{
    num::NonZeroUsize,
    sync::{Arc, LazyLock},
};

use toml::Table;

use super::base_url;
use crate::vendors::{
    Adapter, VendorConfig,
    declared::{Definition, backend},
};

/// Immuta, with a secret that is exchanged.
pub(super) fn immuta() -> &'static dyn Adapter {
    static IMMUTA: LazyLock<Arc<dyn Adapter>> = LazyLock::new(|| {
        let definition = include_str!("../vendors/declared/tests/immuta.toml");
        adapter(definition, "credentials = { exchange_key = \"k\" }")
    });
    &**IMMUTA
}

/// Datasaur, with OAuth.
pub(super) fn datasaur() -> &'static dyn Adapter {
    static DATASAUR: LazyLock<Arc<dyn Adapter>> = LazyLock::new(|| {
        let definition = include_str!("../vendors/declared/tests/datasaur.toml");
        adapter(definition, "credentials = { client_id = \"id\", client_secret = \"s\" }")
    });
    &**DATASAUR
}

/// Claret, with a password that is exchanged.
pub(super) fn claret() -> &'static dyn Adapter {
    static CLARET: LazyLock<Arc<dyn Adapter>> = LazyLock::new(|| {
        let definition = include_str!("../vendors/declared/tests/claret.toml");
        let credentials = "credentials = { email = \"me@example.com\", password = \"p\" }";
        adapter(definition, &format!("params = {{ tenant = \"demo\" }}\n{credentials}"))
    });
    &**CLARET
}

/// Kinetica, one cluster in JSON.
pub(super) fn kinetica() -> &'static dyn Adapter {
    static KINETICA: LazyLock<Arc<dyn Adapter>> = LazyLock::new(|| {
        let definition = include_str!("../vendors/declared/tests/kinetica.toml");
        adapter(definition, "credentials = { username = \"admin\", password = \"p\" }")
    });
    &**KINETICA
}

fn adapter(definition: &str, keys: &str) -> Arc<dyn Adapter> {
    let definition = Arc::new(Definition::parse(definition).expect("the definition has no problem"));
    let keys: Table = toml::from_str(keys).expect("the keys are TOML");
    let credentials = keys.get("credentials").and_then(toml::Value::as_table);
    let chosen = backend::choose(&definition, credentials).expect("the definition has this way");
    let config = backend::read(&definition, &chosen, &keys).expect("the keys have no problem");
    config.build(&base_url(), NonZeroUsize::MAX).expect("an adapter").primary
}
