//! The ways in which a backend of a declared vendor may prove who it is.
//!
//! A backend takes the way whose secret it names. Values beside the secret, such as a user
//! name, are not secret, and may stand in headers of every request.

use http::{HeaderName, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use super::{
    definition::{self, source},
    reader::{Log, Node, Section},
    source::{Names, Source},
    template::{RequestTemplate, Text},
    time::TimeRule,
};
use crate::vendors::{BaseUrl, ClientAuth, Scheme, SecretForm, SignIn};

/// One way.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) name: &'static str,
    /// The key of the secret in `credentials`; none for no credentials.
    pub(super) secret: Option<String>,
    /// Further keys, which are not secret.
    pub(super) fields: Vec<String>,
    /// Headers of every request.
    pub(super) headers: Vec<(HeaderName, Text)>,
    pub(super) kind: WayKind,
}

#[derive(Debug)]
pub(super) enum WayKind {
    None,
    /// The secret, after a word and a space where there is one.
    Plain {
        placement: Placement,
        word: String,
    },
    Basic {
        /// Whether the secret is the user name, and the password is empty.
        is_username: bool,
    },
    OAuth2(OAuth2),
    Exchange(Box<Exchange>),
}

/// Where credentials stand in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    Authorization,
    Header(HeaderName),
    Query(String),
}

/// RFC 6749.
#[derive(Debug)]
pub(super) struct OAuth2 {
    pub(super) url: TokenUrl,
    pub(super) client_auth: ClientAuth,
    pub(super) refreshes: bool,
    pub(super) form: Vec<(String, Text)>,
}

/// Where a token is given.
#[derive(Debug)]
pub(super) enum TokenUrl {
    /// Behind the base URL.
    Path(Text),
    /// At another origin, which the operator has to allow.
    Elsewhere(Text),
}

/// A secret for a token, by a request of the vendor's own.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) request: RequestTemplate,
    pub(super) token: Source,
    pub(super) expires_in: Option<Source>,
    pub(super) expires_at: Option<TimeRule>,
    pub(super) lifetime_s: Option<u64>,
    pub(super) placement: Placement,
    pub(super) word: String,
    pub(super) refused: Option<Source>,
    pub(super) refused_status: Vec<StatusCode>,
}

pub(super) const WAYS: [(&str, &str); 7] = [
    ("none", ""),
    ("bearer", "bearer"),
    ("header", "api_key"),
    ("query", "api_key"),
    ("basic", "password"),
    ("oauth2", "client_secret"),
    ("exchange", "password"),
];

pub(super) const CLIENT_AUTHS: [(&str, ClientAuth); 2] =
    [("form", ClientAuth::Form), ("basic", ClientAuth::Basic)];

/// Whether a grant refreshes.
pub(super) const GRANTS: [(&str, bool); 2] = [("client_credentials", false), ("refresh_token", true)];

/// The keys of all secrets, before the ways are read.
pub(super) fn secret_names(section: &Section<'_>) -> Vec<String> {
    let silent = Log::new("");
    let secret = |(key, _, node): (&str, _, Node<'_>)| {
        let mut keys = node.section(&silent)?;
        let named = keys.get("secret").and_then(|node| node.as_text()).map(str::to_owned);
        named.or_else(|| default_secret(key, &mut keys).map(str::to_owned))
    };
    section.entries().into_iter().filter_map(secret).collect()
}

fn default_secret(way: &str, keys: &mut Section<'_>) -> Option<&'static str> {
    if way == "oauth2" && keys.get("grant").and_then(|node| node.as_text()) == Some("refresh_token") {
        return Some("refresh_token");
    }
    if way == "basic" && keys.get("secret_as").and_then(|node| node.as_text()) == Some("username") {
        return Some("api_key");
    }
    WAYS.iter().find(|(name, _)| *name == way).map(|(_, secret)| *secret).filter(|secret| !secret.is_empty())
}

/// Reads `[credentials]`.
pub(super) fn read(section: &Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    let known: Vec<&str> = WAYS.iter().map(|(name, _)| *name).collect();
    for (key, span, node) in section.entries() {
        let Some((name, _)) = WAYS.iter().find(|(name, _)| *name == key) else {
            log.add(
                span,
                &node.path,
                format!("is no way to sign in; {}", super::reader::remedy(key, &known)),
            );
            continue;
        };
        let Some(keys) = node.section(log) else { continue };
        let Some(way) = way(name, keys, names, log) else { continue };
        let same = ways.iter().find(|other| way.secret.is_some() && other.secret == way.secret);
        if let Some(other) = same {
            let secret = way.secret.as_deref().unwrap_or_default();
            let text = format!(
                "takes its secret at {secret}, as credentials.{} does; write another name, such as secret = \"{}_secret\"",
                other.name, way.name
            );
            node.report(log, text);
        }
        ways.push(way);
    }
    if section.entries().is_empty() {
        section.report(log, "has no way; write [credentials.bearer], or [credentials.none]");
    }
    ways
}

fn way(name: &'static str, mut keys: Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Way> {
    let default = default_secret(name, &mut keys);
    let secret = if name == "none" {
        None
    } else {
        keys.get("secret").and_then(|node| key_name(&node, log)).or_else(|| default.map(str::to_owned))
    };
    let is_username = name == "basic"
        && keys.get("secret_as").and_then(|node| node.word(log, &[("password", false), ("username", true)]))
            == Some(true);
    let mut fields: Vec<String> = match name {
        "basic" if is_username => Vec::new(),
        "basic" => vec!["username".to_owned()],
        "oauth2" => vec!["client_id".to_owned()],
        _ => Vec::new(),
    };
    let more = keys.get("fields").map(|node| node.list()).unwrap_or_default();
    fields.extend(more.iter().filter_map(|node| key_name(node, log)));
    let in_headers = Names { variables: &fields, ..*names };
    // Those of an exchange are its own request's.
    let headers = if name == "exchange" {
        Vec::new()
    } else {
        definition::request_headers(keys.get("headers"), &in_headers, log)
    };
    let kind = match name {
        "none" => Some(WayKind::None),
        "bearer" => {
            let word =
                keys.get("scheme").and_then(|node| scheme(&node, log)).unwrap_or_else(|| "Bearer".to_owned());
            Some(WayKind::Plain { placement: Placement::Authorization, word })
        }
        "header" => {
            let header = keys.required(log, "name", "the header's name, such as name = \"X-Api-Key\"");
            let word = keys.get("scheme").and_then(|node| scheme(&node, log)).unwrap_or_default();
            header.and_then(|node| placement(&node, log)).map(|placement| WayKind::Plain { placement, word })
        }
        "query" => {
            let parameter = keys.required(log, "name", "the parameter's name, such as name = \"api_key\"");
            let parameter = parameter.and_then(|node| node.text(log)).map(str::to_owned);
            parameter.map(|name| WayKind::Plain { placement: Placement::Query(name), word: String::new() })
        }
        "basic" => Some(WayKind::Basic { is_username }),
        "oauth2" => oauth2(&mut keys, &in_headers, log).map(WayKind::OAuth2),
        _ => {
            let variables: Vec<String> = fields.iter().chain(&secret).cloned().collect();
            let names = Names { variables: &variables, ..*names };
            exchange(&mut keys, &names, log).map(|exchange| WayKind::Exchange(Box::new(exchange)))
        }
    };
    keys.finish(log);
    Some(Way { name, secret, fields, headers, kind: kind? })
}

fn key_name(node: &Node<'_>, log: &Log<'_>) -> Option<String> {
    let text = node.text(log)?;
    if !super::id::is_name(text) {
        return node
            .problem(log, format!("is {text:?}; write a name in lower case, of letters, digits and _"));
    }
    Some(text.to_owned())
}

fn scheme(node: &Node<'_>, log: &Log<'_>) -> Option<String> {
    let text = node.text(log)?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return node.problem(log, "is no scheme; write one word, such as scheme = \"Token\"");
    }
    Some(text.to_owned())
}

fn placement(node: &Node<'_>, log: &Log<'_>) -> Option<Placement> {
    let text = node.text(log)?;
    match HeaderName::from_bytes(text.to_lowercase().as_bytes()) {
        Ok(name) if name == http::header::AUTHORIZATION => Some(Placement::Authorization),
        Ok(name) if definition::OWN_HEADERS.contains(&name.as_str()) => {
            node.problem(log, "is written by the gateway; write another header's name")
        }
        Ok(name) => Some(Placement::Header(name)),
        Err(_) => node.problem(log, definition::no_header_name(text)),
    }
}

fn oauth2(keys: &mut Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<OAuth2> {
    let text = |node: &Node<'_>| match Text::parse(node.text(log)?, names) {
        Ok(text) => Some(text),
        Err(problem) => node.problem(log, problem),
    };
    let url = match (keys.get("token_path"), keys.get("token_url")) {
        (Some(path), None) => text(&path).and_then(|parsed| match super::template::path_problem(&parsed) {
            Some(problem) => path.problem(log, problem),
            None => Some(TokenUrl::Path(parsed)),
        }),
        (None, Some(url)) => {
            let origin = url.as_text().and_then(super::origin_of);
            if origin.is_none_or(|origin| origin.contains(['{', '}'])) {
                return url.problem(
                    log,
                    "is no URL with a fixed origin; write one such as \"https://login.example/token\"",
                );
            }
            let cure = if !url.as_text().is_some_and(is_safe) {
                Some("is not encrypted, and the secret is sent there; write an https:// URL")
            } else if url.as_text().is_some_and(|url| url.contains('#')) {
                Some("has a fragment, which is never sent; write it without the # and what follows")
            } else {
                None
            };
            match cure {
                Some(cure) => url.problem(log, cure),
                None => text(&url).map(TokenUrl::Elsewhere),
            }
        }
        (Some(_), Some(url)) => url.problem(log, "stands beside token_path; keep one of them"),
        (None, None) => keys.problem(log, "has neither token_path nor token_url; write one of them"),
    };
    let client_auth =
        keys.get("client_auth").map_or(Some(ClientAuth::Form), |node| node.word(log, &CLIENT_AUTHS));
    let refreshes = keys.get("grant").map_or(Some(false), |node| node.word(log, &GRANTS));
    let form = definition::pairs(keys.get("form"), names, log);
    Some(OAuth2 { url: url?, client_auth: client_auth?, refreshes: refreshes?, form })
}

/// Whether a secret may be sent to this URL.
fn is_safe(url: &str) -> bool {
    let origin = super::origin_of(url).and_then(|origin| origin.parse::<BaseUrl>().ok());
    origin.is_some_and(|origin| origin.is_https() || origin.is_loopback())
}

fn exchange(keys: &mut Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Exchange> {
    const IN_ANSWER: &[&str] = &["body", "params"];
    // A secret stands in this request and nowhere else.
    let request = definition::request(keys, &Names { secrets: &[], ..*names }, log);
    let in_answer = Names { roots: IN_ANSWER, variables: &[], ..*names };
    let token = keys.required(log, "token", "where the token stands, such as token = \"body.token\"");
    let token = token.and_then(|node| source(&node, &in_answer, log));
    let expires_in = keys.get("expires_in").and_then(|node| source(&node, &in_answer, log));
    let expires_at = keys.get("expires_at").and_then(|node| TimeRule::read(&node, &in_answer, log));
    let lifetime_s = keys.get("lifetime_s").and_then(|node| match node.integer(log)? {
        seconds @ 1.. => u64::try_from(seconds).ok(),
        _ => node.problem(log, "is no lifetime; write seconds, such as lifetime_s = 3600"),
    });
    let (mut placement_of, mut word) = (Placement::Authorization, "Bearer".to_owned());
    if let Some(mut send_as) = keys.get("send_as").and_then(|node| node.section(log)) {
        let header = send_as.get("header").and_then(|node| placement(&node, log));
        let written = send_as.get("scheme").and_then(|node| scheme(&node, log));
        send_as.finish(log);
        if header.is_some() && written.is_none() {
            word = String::new();
        }
        placement_of = header.unwrap_or(placement_of);
        word = written.unwrap_or(word);
    }
    let refused = keys.get("refused").and_then(|node| source(&node, &in_answer, log));
    let statuses = keys.get("refused_status").map(|node| node.list()).unwrap_or_default();
    let status = |node: &Node<'_>| match node.integer(log).map(u16::try_from) {
        Some(Ok(status @ 400..=499)) => StatusCode::from_u16(status).ok(),
        _ => node.problem(log, "is no status that refuses a secret; write one from 400 to 499"),
    };
    let refused_status = statuses.iter().filter_map(status).collect();
    let request = request?.request;
    Some(Exchange {
        request,
        token: token?,
        expires_in,
        expires_at,
        lifetime_s,
        placement: placement_of,
        word,
        refused,
        refused_status,
    })
}

impl Way {
    /// The headers that it adds to requests, or that its own request has.
    pub(super) fn request_headers(&self) -> &[(HeaderName, Text)] {
        match &self.kind {
            WayKind::Exchange(exchange) => &exchange.request.headers,
            _ => &self.headers,
        }
    }

    /// Every value that is read to sign in.
    pub(super) fn sources(&self) -> Vec<&Source> {
        let mut sources: Vec<&Source> = self.headers.iter().flat_map(|(_, text)| text.sources()).collect();
        match &self.kind {
            WayKind::None | WayKind::Plain { .. } | WayKind::Basic { .. } => {}
            WayKind::OAuth2(OAuth2 { url: TokenUrl::Path(url) | TokenUrl::Elsewhere(url), form, .. }) => {
                sources.extend(url.sources().chain(form.iter().flat_map(|(_, text)| text.sources())));
            }
            WayKind::Exchange(exchange) => {
                let Exchange { request, token, expires_in, expires_at, refused, .. } = &**exchange;
                sources.extend(request.sources());
                sources.push(token);
                sources.extend(expires_in.iter().chain(refused));
                sources.extend(expires_at.iter().map(|rule| &rule.at));
            }
        }
        sources
    }

    /// What the request for a token can't be written without.
    pub(super) fn required(&self) -> Vec<&Source> {
        match &self.kind {
            WayKind::OAuth2(OAuth2 { url: TokenUrl::Path(url) | TokenUrl::Elsewhere(url), .. }) => {
                url.sources().collect()
            }
            WayKind::Exchange(exchange) => exchange.request.required(),
            WayKind::None | WayKind::Plain { .. } | WayKind::Basic { .. } => Vec::new(),
        }
    }

    /// Where the credentials stand.
    pub(super) fn placement(&self) -> Placement {
        match &self.kind {
            WayKind::Plain { placement, .. } => placement.clone(),
            WayKind::Exchange(exchange) => exchange.placement.clone(),
            WayKind::None | WayKind::Basic { .. } | WayKind::OAuth2(_) => Placement::Authorization,
        }
    }

    /// How the secret becomes a header, with the values beside it.
    pub(super) fn sign_in(&self, fields: &[(String, String)]) -> SignIn {
        let field = |name: &str| {
            fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let (scheme, description) = match &self.kind {
            WayKind::None => (Scheme::Bare, "no credentials"),
            WayKind::Plain { word, placement } => {
                let scheme = match word.as_str() {
                    "" => Scheme::Bare,
                    "Bearer" => Scheme::Bearer,
                    _ => Scheme::Word(word.clone()),
                };
                let description = match (placement, self.name, &scheme) {
                    (Placement::Query(_), ..) => "API key in the query",
                    (Placement::Authorization, _, Scheme::Bearer) => "bearer token",
                    (_, "bearer", _) => "access token",
                    _ => "API key",
                };
                (scheme, description)
            }
            WayKind::Basic { is_username: true } => (Scheme::BasicUsername, "API key as user name"),
            WayKind::Basic { is_username: false } => {
                (Scheme::Basic { username: field("username") }, "user name and password")
            }
            WayKind::OAuth2(oauth2) if oauth2.refreshes => (Scheme::Exchange, "refresh token"),
            WayKind::OAuth2(_) => (Scheme::Exchange, "client id and secret"),
            WayKind::Exchange(_) => (Scheme::Exchange, "secret, exchanged for a token"),
        };
        SignIn { scheme, description }
    }

    /// The key of another secret, which is sent with the first if it is given.
    pub(super) fn second_secret(&self) -> Option<&'static str> {
        match &self.kind {
            WayKind::OAuth2(oauth2) if oauth2.refreshes => Some("client_secret"),
            _ => None,
        }
    }

    /// The characters that the secret may have.
    pub(super) fn form(&self) -> SecretForm {
        match &self.kind {
            // It is percent-encoded there.
            WayKind::Plain { placement: Placement::Query(_), .. } => SecretForm::Text,
            WayKind::Plain { .. } => SecretForm::Header,
            _ => SecretForm::Text,
        }
    }

    /// What to write, as an example.
    pub(super) fn example(&self) -> String {
        let Some(secret) = &self.secret else { return "\"none\"".to_owned() };
        let fields: Vec<String> = self.fields.iter().map(|field| format!("{field} = \"..\"")).collect();
        let secret = format!("{secret} = {{ env = \"NAME\" }}");
        format!("{{ {} }}", [fields, vec![secret]].concat().join(", "))
    }
}

/// A secret with the plain values beside it, for the request of an exchange.
pub(super) fn with_secret(
    way: &Way,
    fields: &[(String, String)],
    secret: &SecretString,
) -> Vec<(String, String)> {
    let name = way.secret.clone().unwrap_or_default();
    fields.iter().cloned().chain([(name, secret.expose_secret().to_owned())]).collect()
}
