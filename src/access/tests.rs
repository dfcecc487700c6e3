use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

fn access(toml: &str) -> Access {
    Access::new(&toml::from_str(toml).unwrap()).unwrap()
}

fn headers(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
    headers
}

/// Who calls with this authorization; waits for keys as the server does.
async fn identify(access: &Access, authorization: &str) -> Result<Grant, Refused> {
    let headers = headers(authorization);
    match access.identify_now(Evidence { headers: &headers, certificate: None, address: None }) {
        Some(identified) => identified,
        None => access.identify(bearer_token(&headers).unwrap()?, None).await,
    }
}

async fn name(access: &Access, token: &str) -> Result<String, Refused> {
    let grant = identify(access, &format!("Bearer {token}")).await?;
    Ok(grant.principal().unwrap().to_owned())
}

#[test]
fn open_access_allows_everything() {
    let access = access("");
    assert!(access.is_open());
    let address = Some([10, 0, 0, 1].into());
    let headers = headers("Bearer anything");
    let grant =
        access.identify_now(Evidence { headers: &headers, certificate: None, address }).unwrap().unwrap();
    assert!(grant.allows(Right::Admin, "any"));
    assert_eq!((grant.principal(), grant.address()), (None, address));
}

#[tokio::test]
async fn use_of_a_caller_counts_after_the_configuration_has_changed_unless_its_rate_has() {
    let token = generate_token();
    let configured = |rate: u32, others: &str| -> config::Access {
        let hash = hash_token(&token);
        let text = format!(
            "tokens.ci.sha256 = [\"{hash}\"]\n\
             policies = [{{ principals = [\"token:ci\"], calls_per_second = {rate} }}{others}]"
        );
        toml::from_str(&text).unwrap()
    };
    let usage = async |access: &Access| {
        let grant = identify(access, &format!("Bearer {token}")).await.unwrap();
        Arc::clone(grant.usage().unwrap())
    };
    let before = Access::new(&configured(1, "")).unwrap();
    let first = usage(&before).await;
    let same = before.renewed(&configured(1, ", { principals = [\"*\"] }")).unwrap();
    assert!(Arc::ptr_eq(&first, &usage(&same).await), "the calls before count");
    let other = same.renewed(&configured(2, "")).unwrap();
    assert!(!Arc::ptr_eq(&first, &usage(&other).await));
}

#[tokio::test]
async fn open_call_is_kept_while_its_caller_is_known_by_the_same_and_may_do_as_much() {
    let [one, two] = [generate_token(), generate_token()];
    let with = |token: &str, policy: &str| {
        access(&format!(
            "certificates = true\ntokens.ci.sha256 = [\"{}\"]\npolicies = [{policy}]",
            hash_token(token)
        ))
    };
    let policy = "{ principals = [\"*\"], backends = [\"a\", \"b*\"], rights = [\"read\", \"download\"] }";
    let before = with(&one, policy);
    let granted = identify(&before, &format!("Bearer {one}")).await.unwrap();
    assert!(before.keeps(&granted) && access("").keeps(&granted));
    assert!(!before.keeps(&Grant::unrestricted(None)), "it was not identified");
    for (token, policy, is_kept) in [
        (&one, policy, true),
        (&two, policy, false),
        (&one, "{ principals = [\"token:other\"] }", false),
        (&one, "{ principals = [\"token:c?\"], rights = [\"download\", \"read\"] }", true),
        (
            &one,
            "{ principals = [\"*\"], backends = [\"b*\", \"c\", \"a\"], rights = [\"admin\", \"read\", \"download\"] }",
            true,
        ),
        (
            &one,
            "{ principals = [\"*\"], backends = [\"a\", \"b\"], rights = [\"read\", \"download\"] }",
            false,
        ),
        (&one, "{ principals = [\"*\"], backends = [\"a\", \"b*\"], rights = [\"read\"] }", false),
        (&one, "{ principals = [\"token:ci\"], backends = [\"z\"] }, { principals = [\"*\"] }", false),
    ] {
        assert_eq!(with(token, policy).keeps(&granted), is_kept, "{policy}");
    }
    let certificate = |access: &Access| {
        let (headers, certificate) = (HeaderMap::new(), Some("spiffe://a/b"));
        access.identify_now(Evidence { headers: &headers, certificate, address: None }).unwrap().unwrap()
    };
    let by_certificate = certificate(&before);
    assert!(with(&two, policy).keeps(&by_certificate));
    let without = format!("tokens.ci.sha256 = [\"{}\"]\npolicies = [{policy}]", hash_token(&one));
    assert!(!access(&without).keeps(&by_certificate), "certificates do not count any more");
}

#[tokio::test]
async fn open_call_with_a_jwt_is_kept_while_its_issuer_is_configured_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let issuer = Issuer::new(Algorithm::ES256, "k1");
    fs::write(&file, issuer.set()).unwrap();
    let text = with_jwt(&format!("jwks_file = {:?}", file.to_str().unwrap()), "ES256");
    let before = access(&text);
    let granted = identify(&before, &format!("Bearer {}", issuer.token(|_, _| ()))).await.unwrap();
    let renewed = |text: &str| before.renewed(&toml::from_str(text).unwrap()).unwrap();
    assert!(renewed(&text).keeps(&granted));
    assert!(!renewed(&text.replace("\"jobwatch\"", "\"another\"")).keeps(&granted));
    assert!(!renewed("policies = [{ principals = [\"*\"] }]").keeps(&granted), "there is no issuer");
}

#[tokio::test]
async fn static_token_names_its_holder_and_each_of_its_tokens_is_accepted() {
    let (old, new) = (generate_token(), generate_token());
    let (a, b) = (hash_token(&old), hash_token(&new));
    let access = access(&format!(
        "tokens.ci.sha256 = [\"{a}\", \"{b}\"]\npolicies = [{{ principals = [\"token:*\"] }}]"
    ));
    for token in [&old, &new] {
        assert_eq!(name(&access, token).await.unwrap(), "token:ci");
        assert_eq!(
            identify(&access, &format!("bearer  {token}")).await.unwrap().principal(),
            Some("token:ci")
        );
    }
    for wrong in [generate_token(), format!("{old}x"), "x".to_owned(), "x".repeat(20_000)] {
        assert!(matches!(name(&access, &wrong).await, Err(Refused::Invalid(_))));
    }
    for wrong in ["Basic YTpi", "Bearer", "Bearer ", &old] {
        assert!(matches!(identify(&access, wrong).await, Err(Refused::Invalid(_))), "{wrong}");
    }
    let mut twice = headers(&format!("Bearer {old}"));
    twice.append(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {new}")).unwrap());
    assert!(matches!(bearer_token(&twice), Some(Err(Refused::Invalid(_)))));
}

#[tokio::test]
async fn caller_may_do_what_the_first_policy_that_names_it_says() {
    let token = generate_token();
    let access = access(&format!(
        r#"
        tokens.ci.sha256 = ["{}"]
        policies = [
            {{ principals = ["token:other"], rights = ["admin"] }},
            {{ principals = ["token:c*"], backends = ["immuta-*", "db"], rights = ["read"], watches = 3 }},
            {{ principals = ["*"], rights = ["read", "download", "admin"] }},
        ]"#,
        hash_token(&token)
    ));
    let grant = identify(&access, &format!("Bearer {token}")).await.unwrap();
    assert!(grant.allows(Right::Read, "immuta-prod") && grant.allows(Right::Read, "db"));
    assert!(!grant.allows(Right::Read, "immuta") && !grant.allows(Right::Read, "db2"));
    assert!(!grant.allows(Right::Download, "db") && !grant.allows(Right::Admin, "db"));
    assert_eq!((grant.watches(), grant.downloads()), (Some(3), None));
}

#[test]
fn call_without_credentials_is_refused_unless_a_policy_names_anonymous_callers() {
    let none = HeaderMap::new();
    let evidence = |certificate| Evidence { headers: &none, certificate, address: None };
    let policy =
        |principal: &str| format!("certificates = true\npolicies = [{{ principals = [\"{principal}\"] }}]");
    for principal in ["*", "token:*", "anonymous*"] {
        let refused = access(&policy(principal)).identify_now(evidence(None)).unwrap().unwrap_err();
        assert_eq!(refused, Refused::Anonymous { certificates: true }, "{principal}");
    }
    let grant = access(&policy("anonymous")).identify_now(evidence(None)).unwrap().unwrap();
    assert!(grant.allows(Right::Read, "b") && !grant.allows(Right::Download, "b"));

    let trusted = access(&policy("spiffe://td/*"));
    let grant = |name| trusted.identify_now(evidence(Some(name))).unwrap().unwrap();
    assert!(grant("spiffe://td/ns/a").allows(Right::Read, "b"));
    assert!(!grant("spiffe://other/ns/a").allows(Right::Read, "b"), "default deny");
    assert!(!grant("dns:spiffe").allows(Right::Read, "b"));
}

#[tokio::test]
async fn calls_beyond_the_rate_are_told_when_the_next_is_accepted() {
    let token = generate_token();
    let access = access(&format!(
        "tokens.ci.sha256 = [\"{}\"]\npolicies = [{{ principals = [\"*\"], calls_per_second = 1 }}]",
        hash_token(&token)
    ));
    let begin = || async {
        let grant = identify(&access, &format!("Bearer {token}")).await.unwrap();
        grant.usage().unwrap().begin_call()
    };
    assert_eq!(begin().await, Ok(()));
    // A machine that takes a second for each call refuses none.
    for _ in 0..1000 {
        if let Err(RateExceeded { retry_in }) = begin().await {
            assert!(!retry_in.is_zero() && retry_in <= std::time::Duration::from_secs(1), "{retry_in:?}");
            return;
        }
    }
    panic!("no call was refused");
}

/// An issuer with one key of each algorithm.
struct Issuer {
    key: EncodingKey,
    algorithm: Algorithm,
    jwk: Value,
}

impl Issuer {
    fn new(algorithm: Algorithm, id: &str) -> Self {
        let key = if algorithm == Algorithm::ES256 {
            EncodingKey::from_ec_der(&rcgen::KeyPair::generate().unwrap().serialize_der())
        } else {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
            // PKCS #8 has 26 bytes before the PKCS #1 that is needed here.
            EncodingKey::from_rsa_der(&der.as_ref()[26..])
        };
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk["kid"] = id.into();
        Self { key, algorithm, jwk }
    }

    fn token(&self, change: impl FnOnce(&mut Header, &mut Value)) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.jwk["kid"].as_str().map(str::to_owned);
        let mut claims =
            json!({ "iss": "https://issuer", "aud": ["x", "jobwatch"], "sub": "alice", "exp": now() + 300 });
        change(&mut header, &mut claims);
        encode(&header, &claims, &self.key).unwrap()
    }

    fn set(&self) -> String {
        json!({ "keys": [self.jwk] }).to_string()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn with_jwt(source: &str, algorithm: &str) -> String {
    format!(
        r#"
        jwt = {{ issuer = "https://issuer", audience = "jobwatch", algorithms = ["{algorithm}"], {source} }}
        policies = [{{ principals = ["jwt:*"] }}]
        "#
    )
}

fn with_file(file: &Path, algorithm: &str) -> Access {
    access(&with_jwt(&format!("jwks_file = {:?}", file.to_str().unwrap()), algorithm))
}

#[tokio::test]
async fn jwt_of_the_issuer_names_the_caller_with_any_kind_of_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    for (algorithm, name_of_algorithm) in
        [(Algorithm::ES256, "ES256"), (Algorithm::RS256, "RS256"), (Algorithm::PS256, "PS256")]
    {
        let issuer = Issuer::new(algorithm, "k1");
        fs::write(&file, issuer.set()).unwrap();
        let access = with_file(&file, name_of_algorithm);
        let token = issuer.token(|_, _| ());
        // The second time from the cache.
        for _ in 0..2 {
            assert_eq!(name(&access, &token).await.unwrap(), "jwt:alice", "{name_of_algorithm}");
        }
        let without_id = issuer.token(|header, _| header.kid = None);
        assert_eq!(name(&access, &without_id).await.unwrap(), "jwt:alice");
        let single_audience = issuer.token(|_, claims| claims["aud"] = "jobwatch".into());
        assert_eq!(name(&access, &single_audience).await.unwrap(), "jwt:alice");
    }
}

#[tokio::test]
async fn jwt_that_is_not_for_this_gateway_now_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let issuer = Issuer::new(Algorithm::ES256, "k1");
    fs::write(&file, issuer.set()).unwrap();
    let access = with_file(&file, "ES256");
    let changed = |change: fn(&mut Value)| issuer.token(|_, claims| change(claims));
    let stranger = Issuer { jwk: issuer.jwk.clone(), ..Issuer::new(Algorithm::ES256, "k1") };
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let claims =
        json!({ "iss": "https://issuer", "aud": "jobwatch", "sub": "alice", "exp": now() + 300 }).to_string();
    let none = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
    // The public key, which everybody knows, as the secret of an HMAC.
    let public = issuer.set();
    let mut hmac_header = Header::new(Algorithm::HS256);
    hmac_header.kid = Some("k1".into());
    let claims: Value = serde_json::from_str(&claims).unwrap();
    let confused = encode(&hmac_header, &claims, &EncodingKey::from_secret(public.as_bytes())).unwrap();
    let rsa = Issuer { jwk: issuer.jwk.clone(), ..Issuer::new(Algorithm::RS256, "k1") };
    let token = issuer.token(|_, _| ());
    let cut = token[..token.len() - 2].to_owned();

    for (case, token) in [
        ("expired", changed(|claims| claims["exp"] = (now() - 60).into())),
        ("not valid yet", changed(|claims| claims["nbf"] = (now() + 60).into())),
        ("another audience", changed(|claims| claims["aud"] = "other".into())),
        ("another issuer", changed(|claims| claims["iss"] = "https://other".into())),
        ("no end", changed(|claims| drop(claims.as_object_mut().unwrap().remove("exp")))),
        ("no audience", changed(|claims| drop(claims.as_object_mut().unwrap().remove("aud")))),
        ("no issuer", changed(|claims| drop(claims.as_object_mut().unwrap().remove("iss")))),
        ("no name", changed(|claims| drop(claims.as_object_mut().unwrap().remove("sub")))),
        ("name with a line break", changed(|claims| claims["sub"] = "a\nb".into())),
        ("signed by another key", stranger.token(|_, _| ())),
        ("no signature", none),
        ("algorithm confusion", confused),
        ("algorithm that is not configured", rsa.token(|_, _| ())),
        ("unknown key", issuer.token(|header, _| header.kid = Some("k2".into()))),
        ("damaged", cut),
    ] {
        assert!(matches!(name(&access, &token).await, Err(Refused::Invalid(_))), "{case}");
    }
    for (case, token) in [
        ("issuer's clock ahead", changed(|claims| claims["nbf"] = (now() + 20).into())),
        ("issuer's clock behind", changed(|claims| claims["exp"] = (now() - 20).into())),
    ] {
        assert_eq!(name(&access, &token).await.unwrap(), "jwt:alice", "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_keys_are_found_by_the_token_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let (old, new) = (Issuer::new(Algorithm::ES256, "k1"), Issuer::new(Algorithm::ES256, "k2"));
    fs::write(&file, old.set()).unwrap();
    let access = with_file(&file, "ES256");
    assert_eq!(name(&access, &old.token(|_, _| ())).await.unwrap(), "jwt:alice");
    fs::write(&file, new.set()).unwrap();
    assert_eq!(name(&access, &new.token(|_, _| ())).await.unwrap(), "jwt:alice");
    let other = old.token(|_, claims| claims["sub"] = "bob".into());
    assert!(name(&access, &other).await.is_err(), "its key was withdrawn");

    // A file that is being written leaves the keys that were read before.
    fs::write(&file, "{").unwrap();
    tokio::time::advance(std::time::Duration::from_mins(1)).await;
    assert!(name(&access, &old.token(|_, claims| claims["sub"] = "c".into())).await.is_err());
    assert_eq!(name(&access, &new.token(|_, claims| claims["sub"] = "c".into())).await.unwrap(), "jwt:c");
}

/// Answers each request with the next of these bodies, and the last one for ever.
async fn serve(bodies: Vec<String>) -> std::net::SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for n in 0..100 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            let body = &bodies[n.min(bodies.len() - 1)];
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn keys_behind_a_url_are_read_when_a_token_needs_them() {
    let issuer = Issuer::new(Algorithm::ES256, "k1");
    let address = serve(vec![issuer.set()]).await;
    let access = access(&with_jwt(&format!("jwks_url = \"http://{address}/keys\""), "ES256"));
    assert_eq!(name(&access, &issuer.token(|_, _| ())).await.unwrap(), "jwt:alice");
}

#[tokio::test]
async fn tokens_with_unknown_keys_share_look_ups_and_do_not_keep_a_new_key_out() {
    let (old, new) = (Issuer::new(Algorithm::ES256, "k1"), Issuer::new(Algorithm::ES256, "k2"));
    let forged = Issuer::new(Algorithm::ES256, "no-such-key");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (set, requests) = (Arc::new(Mutex::new(old.set())), Arc::new(AtomicUsize::new(0)));
    let issuer = tokio::spawn({
        let (set, requests) = (Arc::clone(&set), Arc::clone(&requests));
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                requests.fetch_add(1, Relaxed);
                let _ = stream.read(&mut vec![0; 4096]).await.unwrap();
                let body = set.lock().unwrap().clone();
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
                let _ = stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await;
            }
        }
    });
    let access = access(&with_jwt(&format!("jwks_url = \"http://{address}/keys\""), "ES256"));
    assert_eq!(name(&access, &old.token(|_, _| ())).await.unwrap(), "jwt:alice");
    let began = tokio::time::Instant::now();
    let flood = (0..200).map(|n| {
        let token = forged.token(|_, claims| claims["sub"] = format!("{n}").into());
        let access = &access;
        async move { name(access, &token).await.unwrap_err() }
    });
    // The key comes while forged tokens have used up the look-up of this second.
    let (refused, accepted) = tokio::join!(futures_util::future::join_all(flood), async {
        set.lock().unwrap().clone_from(&new.set());
        name(&access, &new.token(|_, _| ())).await
    });
    assert_eq!(accepted.unwrap(), "jwt:alice");
    assert!(refused.iter().all(|refused| *refused == Refused::Invalid("the issuer has no such key")));
    let (requests, seconds) = (requests.load(Relaxed), usize::try_from(began.elapsed().as_secs()).unwrap());
    assert!(requests <= 3 + seconds, "{requests} requests in {seconds} seconds");
    issuer.abort();
}

#[tokio::test]
async fn keys_that_were_never_reachable_make_a_token_unverifiable_and_not_invalid() {
    let issuer = Issuer::new(Algorithm::ES256, "k1");
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let access_without_keys = access(&with_jwt(&format!("jwks_url = \"http://{nobody}/keys\""), "ES256"));
    let refused = name(&access_without_keys, &issuer.token(|_, _| ())).await.unwrap_err();
    assert_eq!(refused, Refused::Unverifiable);

    let huge = serve(vec![format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(1 << 20))]).await;
    let access_with_huge = access(&with_jwt(&format!("jwks_url = \"http://{huge}/keys\""), "ES256"));
    assert_eq!(name(&access_with_huge, &issuer.token(|_, _| ())).await, Err(Refused::Unverifiable));
}

#[test]
fn name_of_a_certificate_is_its_spiffe_id_then_its_dns_name_then_its_subject() {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    let certificate = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "spiffe://forged");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    };
    let dns = SanType::DnsName("Host.Example".try_into().unwrap());
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let name = |names| names_of_certificate(&certificate(names));
    assert_eq!(name(vec![dns.clone(), uri("spiffe://td/a")]).as_deref(), Some("spiffe://td/a"));
    assert_eq!(name(vec![uri("https://x"), dns]).as_deref(), Some("dns:host.example"));
    assert_eq!(name(vec![]).as_deref(), Some("subject:CN=spiffe://forged"));
    assert_eq!(names_of_certificate(b"not a certificate"), None);
}

#[tokio::test]
async fn download_waits_while_its_caller_has_used_up_its_bytes() {
    let token = generate_token();
    let access = access(&format!(
        "tokens.ci.sha256 = [\"{}\"]\npolicies = [{{ principals = [\"*\"], download_bytes_per_second = \"128 KiB\" }}]",
        hash_token(&token)
    ));
    let grant = identify(&access, &format!("Bearer {token}")).await.unwrap();
    let began = tokio::time::Instant::now();
    // A second's worth at once, and then half of one more.
    grant.usage().unwrap().send(128 << 10).await;
    grant.usage().unwrap().send(64 << 10).await;
    assert!(began.elapsed() >= std::time::Duration::from_millis(450), "{:?}", began.elapsed());
}
