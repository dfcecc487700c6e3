use crate::config::{Config, Protocol, Traces};

const BACKEND: &str = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"\n";

fn read(keys: &str, variables: &[(&str, &str)]) -> Result<Option<Traces>, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = Config::parse(&format!("[traces]\n{keys}\n{BACKEND}"), variables);
    config.map(|config| config.traces).map_err(|invalid| invalid.to_string())
}

fn traces(keys: &str, variables: &[(&str, &str)]) -> Traces {
    read(keys, variables).unwrap().unwrap()
}

fn problem(keys: &str, variables: &[(&str, &str)]) -> String {
    read(keys, variables).unwrap_err()
}

#[test]
fn traces_are_off_without_an_endpoint() {
    assert!(read("", &[]).unwrap().is_none());
    assert!(read("sample_ratio = 0.5", &[("OTEL_SERVICE_NAME", "gateway")]).unwrap().is_none());
    let endpoint = "endpoint = \"http://127.0.0.1:4318\"";
    for variable in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let set = [variable, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
        assert!(read(endpoint, &set).unwrap().is_none(), "{variable:?}");
    }
}

#[test]
fn endpoint_has_the_path_of_its_protocol() {
    let url = |keys: &str, variables: &[(&str, &str)]| traces(keys, variables).endpoint.as_str().to_owned();
    for (keys, expected) in [
        ("endpoint = \"http://c:4318\"", "http://c:4318/v1/traces"),
        ("endpoint = \"https://c/otlp/v1/traces\"", "https://c/otlp/v1/traces"),
        ("endpoint = \"http://c:4317\"\nprotocol = \"grpc\"", "http://c:4317/"),
    ] {
        assert_eq!(url(keys, &[]), expected);
    }
    for (variables, expected) in [
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")][..], "http://c:4318/v1/traces"),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/otlp")], "http://c/otlp/v1/traces"),
        (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/otlp")], "http://c/otlp"),
        (&[("OTEL_TRACES_EXPORTER", "otlp")], "http://localhost:4318/v1/traces"),
        (
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2"),
                ("OTEL_TRACES_EXPORTER", "otlp"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ],
            "http://b:2/",
        ),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"), ("JOBWATCH__TRACES__ENDPOINT", "http://b:2/x")],
            "http://b:2/x",
        ),
    ] {
        assert_eq!(url("endpoint = \"http://file:1\"", variables), expected, "{variables:?}");
    }
}

#[test]
fn variables_of_opentelemetry_set_every_key() {
    let set = traces(
        "endpoint = \"http://c:4317\"\nsample_ratio = 0.5\nattributes = { team = \"a\" }\npropagate = true",
        &[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hush, x-tenant = a"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_SERVICE_NAME", "gateway"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=ignored"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ],
    );
    assert_eq!(set.protocol, Protocol::Grpc);
    assert_eq!(set.headers["authorization"], "Bearer hush");
    assert!(set.headers.values().all(http::HeaderValue::is_sensitive));
    assert_eq!(set.headers["x-tenant"], "a");
    assert_eq!((set.timeout.as_millis(), &*set.service_name), (2500, "gateway"));
    assert_eq!(set.attributes["deployment.environment.name"], "prod");
    assert!(!set.attributes.contains_key("service.name"));
    assert!((set.sample_ratio - 0.25).abs() < f64::EPSILON && !set.parent_based && set.propagate);
    let by_attribute = [("OTEL_RESOURCE_ATTRIBUTES", "service.name=gateway")];
    assert_eq!(traces("endpoint = \"http://c:1\"", &by_attribute).service_name, "gateway");
}

#[test]
fn sampler_is_parent_based_unless_it_says_otherwise() {
    let sampler = |name: &str| {
        let set = traces("endpoint = \"http://c:1\"\nsample_ratio = 0.5", &[("OTEL_TRACES_SAMPLER", name)]);
        (set.sample_ratio.to_string(), set.parent_based)
    };
    assert_eq!(sampler(""), ("0.5".to_owned(), true));
    assert_eq!(sampler("always_on"), ("1".to_owned(), false));
    assert_eq!(sampler("parentbased_always_off"), ("0".to_owned(), true));
    assert_eq!(sampler("parentbased_traceidratio"), ("1".to_owned(), true));
}

#[test]
fn bad_key_is_refused_with_what_to_write() {
    let endpoint = "endpoint = \"http://c:1\"\n";
    for (keys, expected) in [
        (
            "endpoint = \"http://user:hush@c:4318\"",
            "traces.endpoint can't be used; write a URL such as \"http://collector.example:4318\", without user, \
             query and fragment",
        ),
        ("endpoint = \"collector:4317\"", "traces.endpoint can't be used; write a URL such as"),
        ("endpoint = 4317", "traces.endpoint can't be used; write a URL such as"),
        (
            "endpoint = \"http://c:4317/v1/traces\"\nprotocol = \"grpc\"",
            "traces.endpoint has a path, which gRPC has no use for; write one such as \
             \"http://collector.example:4317\", or protocol = \"http\"",
        ),
        ("protocol = \"htp\"", "traces.protocol is \"htp\"; did you mean http?"),
        ("protocol = \"udp\"", "traces.protocol is \"udp\"; write \"http\" or \"grpc\""),
        ("sample_ratio = 2", "traces.sample_ratio is 2; write a number from 0 to 1, such as 0.05"),
        ("timeout = \"2m\"", "traces.timeout is \"2m\"; write a duration from 1ms to 1m"),
        (
            "headers = { grpc-timeout = \"1S\" }",
            "traces.headers.grpc-timeout is set by the gateway; remove it",
        ),
        ("headers = { Host = \"a\" }", "traces.headers.Host is set by the gateway; remove it"),
        ("headers = { \"a b\" = \"hush\" }", "traces.headers.\"a b\" is not the name of a header"),
        (
            "headers = { a = \"hush\\n\" }",
            "traces.headers.a holds a character that a header can't; remove it",
        ),
        (
            "headers = { a = { env = \"NO\" } }",
            "traces.headers.a is the variable NO, which is not set; set it",
        ),
        ("headers = { a = 1 }", "traces.headers.a is no text; write it in quotes"),
        ("ca = \"/no/such/file\"", "traces.ca is a file that can't be read: "),
        ("service_name = \"\"", "traces.service_name has 0 bytes; write 1 to 1024"),
        ("attributes = \"a\"", "traces.attributes can't be used; write a table such as"),
        ("sampel_ratio = 1", "traces.sampel_ratio is not a key here; did you mean sample_ratio?"),
    ] {
        let text =
            problem(&format!("{}{keys}", if keys.starts_with("endpoint") { "" } else { endpoint }), &[]);
        assert!(text.starts_with(expected), "{keys} gave {text}");
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn bad_variable_is_refused_by_its_name() {
    for (variable, value, expected) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "is \"http/json\"; write grpc or http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "is \"zipkin\"; write otlp or none"),
        ("OTEL_SDK_DISABLED", "yes", "is \"yes\"; write true or false"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "is \"10s\"; write milliseconds, such as 10000"),
        (
            "OTEL_TRACES_SAMPLER",
            "jaeger_remote",
            "is \"jaeger_remote\"; write always_on, always_off or traceidratio, each also with parentbased_ before it",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "a=1,hush",
            "holds something else than name=value pairs with commas between them; write such as a=1,b=2, with %2C \
             for a comma",
        ),
    ] {
        assert_eq!(problem("", &[(variable, value)]), format!("{variable} {expected}"));
    }
    let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "half")];
    assert_eq!(
        problem("", &ratio),
        "traces.sample_ratio (set by OTEL_TRACES_SAMPLER_ARG) is \"half\"; write a number from 0 to 1, such as 0.05"
    );
    let endpoint = problem("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")]);
    assert!(
        endpoint.starts_with("traces.endpoint (set by OTEL_EXPORTER_OTLP_ENDPOINT) can't be used"),
        "{endpoint}"
    );
}

#[test]
fn example_shows_the_defaults_of_traces() {
    let example = include_str!("../../../jobwatch.example.toml");
    let (_, section) = example.split_once("\n[traces]").unwrap();
    let lines = section.lines().skip(1).take_while(|line| !line.is_empty());
    let keys: String =
        lines.filter_map(|line| line.strip_prefix("# ")).map(|line| format!("{line}\n")).collect();
    assert_eq!(keys.lines().count(), 9, "{keys}");
    let endpoint = keys.lines().find(|line| line.starts_with("endpoint")).unwrap();
    assert_eq!(format!("{:?}", traces(&keys, &[])), format!("{:?}", traces(endpoint, &[])));
}
