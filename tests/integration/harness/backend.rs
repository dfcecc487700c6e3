//! The `[backends.x]` tables of a gateway's configuration.

use super::*;

/// One `[backends.x]` of a configuration: by default with its vendor's name,
/// the vendor's usual credentials and a short poll interval.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    name: String,
    vendor: Vendor,
    url: String,
    credentials: String,
    more: String,
    poll: BTreeMap<&'static str, String>,
}

impl Backend {
    pub(crate) fn of(simulator: &Simulator) -> Self {
        Self::at(simulator.vendor(), simulator.base_url())
    }

    pub(crate) fn at(vendor: Vendor, url: impl Into<String>) -> Self {
        let credentials = match vendor {
            Vendor::Immuta => format!("{{ api_key = {:?} }}", credentials::IMMUTA_API_KEY),
            Vendor::Kinetica => format!(
                "{{ username = {:?}, password = {:?} }}",
                credentials::KINETICA_USER,
                credentials::KINETICA_PASSWORD
            ),
            Vendor::Claret => format!(
                "{{ email = {:?}, password = {:?} }}",
                credentials::CLARET_EMAIL,
                credentials::CLARET_PASSWORD
            ),
            Vendor::Datasaur => format!(
                "{{ client_id = {:?}, client_secret = {:?} }}",
                credentials::DATASAUR_CLIENT_ID,
                credentials::DATASAUR_CLIENT_SECRET
            ),
        };
        let poll = [
            ("min_interval", "50ms"),
            ("max_interval", "200ms"),
            ("timeout", "5s"),
            ("not_found_grace", "300ms"),
            ("max_backoff", "200ms"),
        ];
        let mut poll: BTreeMap<_, _> =
            poll.into_iter().map(|(key, value)| (key, format!("{value:?}"))).collect();
        poll.insert("requests_per_second", "1000".to_owned());
        Self { name: vendor.to_string(), vendor, url: url.into(), credentials, more: String::new(), poll }
    }

    /// An address without a listener.
    pub(crate) async fn dead(vendor: Vendor) -> Self {
        Self::at(vendor, format!("http://{}", own_address().await))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub(crate) fn path(mut self, path: &str) -> Self {
        self.url.push_str(path);
        self
    }

    pub(crate) fn credentials(mut self, toml: impl Into<String>) -> Self {
        self.credentials = toml.into();
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.credentials(format!("{{ bearer = {token:?} }}"))
    }

    /// A key of the vendor's own, its value in TOML.
    pub(crate) fn key(mut self, key: &str, toml: &str) -> Self {
        writeln!(self.more, "{key} = {toml}").unwrap();
        self
    }

    /// With these clusters behind its own.
    pub(crate) fn standbys(self, standbys: &[&Simulator]) -> Self {
        let urls: Vec<_> = standbys.iter().map(|standby| standby.base_url()).collect();
        self.key("standby_urls", &format!("{urls:?}"))
    }

    /// A key below `poll`, its value in TOML.
    pub(crate) fn poll(mut self, key: &'static str, toml: &str) -> Self {
        self.poll.insert(key, toml.to_owned());
        self
    }

    /// Polls at exactly this interval.
    pub(crate) fn every(self, interval: Duration) -> Self {
        let interval = format!("\"{}ms\"", interval.as_millis());
        let backend = self.poll("min_interval", &interval).poll("max_interval", &interval);
        backend.poll("max_backoff", &interval)
    }

    fn toml(&self) -> String {
        let Self { name, vendor, url, credentials, more, poll } = self;
        let mut toml = format!(
            "\n[backends.{name}]\nvendor = \"{vendor}\"\nbase_url = {url:?}\ncredentials = {credentials}\n"
        );
        if *vendor == Vendor::Claret {
            writeln!(toml, "tenant = {:?}", credentials::CLARET_TENANT).unwrap();
        }
        toml.push_str(more);
        writeln!(toml, "[backends.{name}.poll]").unwrap();
        for (key, value) in poll {
            writeln!(toml, "{key} = {value}").unwrap();
        }
        toml
    }
}

/// A whole configuration file; `sections` come before the backends.
pub(crate) fn config_text(sections: &str, backends: impl IntoIterator<Item = Backend>) -> String {
    let backends: String = backends.into_iter().map(|backend| backend.toml()).collect();
    format!("allow_inline_secrets = true\n{sections}\n{backends}")
}
