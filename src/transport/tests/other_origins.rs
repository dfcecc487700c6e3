//! Files at other origins, and the rate of the backend that names them.

use std::{io::Write, num::NonZeroU32, time::Duration};

use tempfile::NamedTempFile;

use super::tls_vendor::{Act, TlsVendor};
use crate::{
    config::Config,
    transport::{Endpoint, Files, RateLimiter, ResponseBudget},
    vendors::declared::tests::small_definition,
};

const DEFINITION: &str = small_definition!(
    r#"[id]
pattern = "{export_id}"
[credentials.none]
[request]
path = "/v1/exports/{{ id.export_id }}""#,
    r#"[[files]]
name = "a.csv"
url = "{{ job.url }}"
origin = "https://*"
"#
);

#[tokio::test]
async fn file_at_another_origin_does_not_count_against_the_rate() {
    for protocol in ["http/1.1", "h2"] {
        let storage = TlsVendor::start(protocol, |_, _| Act::Answer).await;
        let origin = format!("https://127.0.0.1:{}", storage.port);
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(DEFINITION.as_bytes()).unwrap();
        let text = format!(
            "[backends.exports]\nvendor_file = {:?}\nbase_url = \"http://127.0.0.1:1\"\nca = {:?}\n\
             allow_origins = [{origin:?}]",
            file.path().to_str().unwrap(),
            storage.ca.path().to_str().unwrap()
        );
        let config = Config::parse(&text, []).unwrap();
        let endpoint = Endpoint::new(&config.backends[0], &ResponseBudget::new(1 << 20)).unwrap();
        // A permit of it is never consumed.
        let limiter = RateLimiter::new(NonZeroU32::MIN);
        limiter.set_allowance(0, 0, None);
        let location = format!("{origin}/a.csv?sig=1");
        assert!(endpoint.is_elsewhere(&location).unwrap());
        let open = endpoint.open(&location, 0, None, limiter.deferred());
        let mut file = tokio::time::timeout(Duration::from_mins(1), open).await.unwrap().unwrap();
        assert_eq!(file.next().await.unwrap().unwrap(), "{}");
        assert!(file.next().await.unwrap().is_none());
        assert_eq!(storage.requests().len(), 1);
    }
}
