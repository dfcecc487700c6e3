//! Secrets and addresses of people within any text, known by their form.

use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::{Captures, Regex};

use super::{
    readable,
    secret_names::is_telling_name,
    text_pairs::{self, is_ordinary},
    words::state_of,
};

pub(super) const REDACTED: &str = "redacted";
const EMAIL: &str = "user@example.com";

/// A shorter secret is not looked for in other texts.
const TELLING: usize = 6;

/// A secret of letters alone that is shorter may be a word that means other things elsewhere.
const LONGEST_WORD: usize = 12;

/// Secrets that need no name: PEM, tokens with the beginnings that vendors give them, and the
/// like. Each is replaced whole.
const FORMS: [&str; 15] = [
    // Keys in PEM, also where the line ends are escaped or the end is missing.
    r"-----BEGIN [A-Z0-9 ]+-----(?s:.*?)(?:-----END [A-Z0-9 ]+-----|$)",
    // JSON Web Tokens, and what else is JSON in base64.
    r"\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,4}",
    // Amazon Web Services, Twilio, Google.
    r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{12,}",
    r"\b(?:SK|AC)[0-9a-f]{32}\b",
    r"\bAIza[0-9A-Za-z_-]{20,}|\bya29\.[0-9A-Za-z_.-]+|\bGOCSPX-[0-9A-Za-z_-]+|\b1//0[0-9A-Za-z_-]{20,}",
    // GitHub, GitLab, Slack.
    r"\bgh[pousr]_[A-Za-z0-9]{10,}|\bgithub_pat_[A-Za-z0-9_]{10,}",
    r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent|oas)-[A-Za-z0-9_.-]{8,}",
    r"\bx(?:ox[abeoprs]|app)-[A-Za-z0-9-]{8,}",
    // OpenAI, Anthropic, Stripe, and other keys that begin with sk, rk or pk.
    r"\b[srp]k[-_][A-Za-z0-9_-]{8,}|\bwhsec_[A-Za-z0-9+/=]{8,}",
    // Hugging Face, Databricks, dbt, Replicate, Prefect, Terraform, Vault, Shopify.
    r"\bhf_[A-Za-z0-9]{10,}|\bdapi[a-f0-9]{14,}(?:-[0-9])?|\bdbt[cu]_[A-Za-z0-9+/=_-]{10,}|\br8_[A-Za-z0-9]{10,}",
    r"\bpn[ub]_[A-Za-z0-9]{10,}|\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]+|\bhv[sbr]\.[A-Za-z0-9_-]{10,}",
    r"\bshp(?:at|ca|pa|ss|ua)_[A-Za-z0-9]{8,}",
    // Packages, mail and other services.
    r"\bnpm_[A-Za-z0-9]{16,}|\bpypi-[A-Za-z0-9_-]{16,}|\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{8,}|\bdo[opr]_v1_[a-f0-9]{16,}",
    r"\bSG\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}|\bkey-[0-9a-f]{24,}|\blin_api_[A-Za-z0-9]{10,}|\bntn_[A-Za-z0-9]{10,}",
    r"\bATATT[A-Za-z0-9_=-]{10,}|\bfigd_[A-Za-z0-9_-]{10,}|\bAGE-SECRET-KEY-1[A-Z0-9]+|\bNRAK-[A-Z0-9]{10,}|\bglsa_[A-Za-z0-9_]{10,}|\bbot[0-9]{6,}:[A-Za-z0-9_-]{10,}",
];

static FORM: LazyLock<Regex> = LazyLock::new(|| regex(&FORMS.join("|")));
static URL: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>\\`{}|]*[^\s"'<>\\`{}|.,!]"#));
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"[\w.%+'-]+(@|%40)[A-Za-z0-9\u{80}-\u{10ffff}-]+(?:\.[A-Za-z0-9\u{80}-\u{10ffff}-]+)+")
});
/// A header with credentials, to the end of its line.
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]*(?:key|token|auth|secret|signature)[a-z-]*)(\\*["']?\s*:\s*\\*["']?)([^\r\n"'\\]+)"#,
    )
});
static BEARER: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)^(\s*bearer)(\s+)(\S+)\s*$"));
static SCHEME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)([A-Za-z0-9._~+/=|:-]{4,})"));
static USER: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"(\s-[uU]|--(?:proxy-)?user)([ =]["']?)([^\s"']+:[^\s"']+)"#));
static WEBHOOK: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)(hooks\.slack\.com/(?:services|workflows|triggers)|/webhooks?/[0-9]+|webhook\.office\.com)(/)([^\s"'<>]+)"#,
    )
});
/// What may be a word of its own.
static WORD: LazyLock<Regex> = LazyLock::new(|| regex(r"[A-Za-z0-9+/=_.~-]{40,}"));

pub(super) fn regex(pattern: &str) -> Regex {
    let built = regex::RegexBuilder::new(pattern).size_limit(16 << 20).build();
    built.expect("the patterns are constants, which the tests compile")
}

/// What stays, and what is a secret wherever it stands.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    kept: Vec<String>,
    known: Vec<String>,
}

impl Cleaner {
    /// Texts that are one of `kept` stay.
    pub(super) fn new(kept: &[&str]) -> Self {
        Self { kept: kept.iter().map(|text| (*text).to_owned()).collect(), known: Vec::new() }
    }

    /// Notes a secret, which goes from every text.
    pub(super) fn note(&mut self, secret: &str) {
        // Words of the vendor's states and of people stand in many places.
        let is_letters = secret.bytes().all(|byte| byte.is_ascii_alphabetic() || b"_-".contains(&byte));
        let is_word = state_of(secret).is_some() || is_letters && secret.len() < LONGEST_WORD;
        if secret.len() >= TELLING
            && !is_word
            && !self.keeps(secret)
            && !self.known.iter().any(|known| known == secret)
        {
            self.known.push(secret.to_owned());
            // One may begin with another.
            self.known.sort_by_key(|known| std::cmp::Reverse(known.len()));
        }
    }

    pub(super) fn keeps(&self, text: &str) -> bool {
        self.kept.iter().any(|kept| kept == text)
    }

    /// A text without secrets and addresses.
    pub(super) fn text(&self, text: &str) -> String {
        if self.keeps(text) {
            return text.to_owned();
        }
        let mut text = text.to_owned();
        for known in &self.known {
            text = without(&text, known, !readable::is_random(known));
        }
        self.by_form(text)
    }

    /// The name of a member without secrets and addresses. A secret that people could read may
    /// be a word of the name.
    pub(super) fn name(&self, name: &str) -> String {
        if self.keeps(name) {
            return name.to_owned();
        }
        let mut text = name.to_owned();
        for known in self.known.iter().filter(|known| FORM.is_match(known) || readable::is_random(known)) {
            text = without(&text, known, true);
        }
        self.by_form(text)
    }

    /// A text without what is a secret by its form.
    fn by_form(&self, mut text: String) -> String {
        let whole = |found: &Captures<'_>| {
            if self.keeps(&found[0]) { found[0].to_owned() } else { REDACTED.to_owned() }
        };
        let third = |is: fn(&str, &str) -> bool| {
            move |found: &Captures<'_>| {
                if self.keeps(&found[3]) || !is(&found[1], &found[3]) {
                    return found[0].to_owned();
                }
                format!("{}{}{REDACTED}", &found[1], &found[2])
            }
        };
        let mut replace = |pattern: &Regex, by: &dyn Fn(&Captures<'_>) -> String| {
            if pattern.is_match(&text) {
                text = pattern.replace_all(&text, by).into_owned();
            }
        };
        replace(&WEBHOOK, &third(|_, _| true));
        replace(&FORM, &whole);
        replace(&URL, &|found| self.url(&found[0]));
        replace(&HEADER, &third(|_, _| true));
        replace(&BEARER, &third(|_, value| !is_ordinary(value)));
        replace(&SCHEME, &third(is_of_scheme));
        replace(&USER, &third(|_, _| true));
        let mut text = text_pairs::redacted(&text, &|value| self.keeps(value));
        let mut replace = |pattern: &Regex, by: &dyn Fn(&Captures<'_>) -> String| {
            if pattern.is_match(&text) {
                text = pattern.replace_all(&text, by).into_owned();
            }
        };
        replace(&ADDRESS, &|found| match &found[1] {
            _ if self.keeps(&found[0]) => found[0].to_owned(),
            "@" => EMAIL.to_owned(),
            _ => EMAIL.replace('@', "%40"),
        });
        replace(&WORD, &|found| {
            if is_random(&found[0]) && !self.keeps(&found[0]) {
                REDACTED.to_owned()
            } else {
                found[0].to_owned()
            }
        });
        text
    }

    /// The value of a member, or of a parameter, of this name.
    pub(super) fn value(&self, name: &str, text: &str) -> String {
        if self.keeps(text) {
            return text.to_owned();
        }
        if is_telling_name(name) && is_mixed(text, 16) {
            return REDACTED.to_owned();
        }
        self.text(text)
    }

    /// A URL without user info, and with other values in its query, its fragment and the
    /// parameters of its path.
    fn url(&self, url: &str) -> String {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, end)| (rest, Some(end)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // Matrix parameters may follow the host as well.
        let (authority, parameters) = authority.split_at(authority.find(';').unwrap_or(authority.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let mut text = format!("{scheme}://{host}{}", self.segment(parameters));
        text += &path.split('/').map(|segment| self.segment(segment)).collect::<Vec<_>>().join("/");
        if let Some(query) = query {
            text = text + "?" + &self.pairs(query);
        }
        if let Some(fragment) = fragment {
            let is_route = fragment.starts_with(['/', '!']) && !fragment.contains('=');
            let shown = if is_route {
                fragment.split('/').map(|segment| self.segment(segment)).collect::<Vec<_>>().join("/")
            } else if fragment.contains('=') {
                self.pairs(fragment)
            } else if self.keeps(fragment) || fragment.len() < 16 {
                fragment.to_owned()
            } else {
                REDACTED.to_owned()
            };
            text = text + "#" + &shown;
        }
        text
    }

    /// A segment of a path, with `;name=value` behind it.
    fn segment(&self, segment: &str) -> String {
        let mut pieces = segment.split(';');
        let first = pieces.next().unwrap_or_default();
        let decoded = percent_decode_str(first).decode_utf8_lossy();
        let is_plain = self.keeps(&decoded) || !is_mixed(&decoded, 32) || !is_random_letters(&decoded);
        let mut text = if is_plain { first.to_owned() } else { REDACTED.to_owned() };
        for piece in pieces {
            text = text + ";" + &self.pair(piece);
        }
        text
    }

    fn pairs(&self, query: &str) -> String {
        query.split('&').map(|pair| self.pair(pair)).collect::<Vec<_>>().join("&")
    }

    fn pair(&self, pair: &str) -> String {
        let decoded =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        match pair.split_once('=') {
            Some((_, value)) if value.is_empty() || self.keeps(&decoded(value)) => pair.to_owned(),
            Some((name, _)) => format!("{name}={REDACTED}"),
            None if pair.len() < 16 || self.keeps(&decoded(pair)) => pair.to_owned(),
            None => REDACTED.to_owned(),
        }
    }
}

/// A text with `redacted` in place of a secret, or only where that is a word of its own.
fn without(text: &str, secret: &str, is_word: bool) -> String {
    let is_inner = |c: Option<char>| is_word && c.is_some_and(char::is_alphanumeric);
    let begins = secret.starts_with(char::is_alphanumeric);
    let ends = secret.ends_with(char::is_alphanumeric);
    let (mut out, mut copied) = (String::new(), 0);
    for (at, _) in text.match_indices(secret) {
        let (before, after) = (&text[..at], &text[at + secret.len()..]);
        let is_part = begins && is_inner(before.chars().next_back()) && !ends_escape(before);
        if !(is_part || ends && is_inner(after.chars().next())) {
            out = out + &text[copied..at] + REDACTED;
            copied = at + secret.len();
        }
    }
    out + &text[copied..]
}

/// Whether the letter before a word is that of an escape, such as `\n` and `%3D`.
fn ends_escape(before: &str) -> bool {
    let mut chars = before.chars().rev();
    let (last, second, third) = (chars.next(), chars.next(), chars.next());
    let is_hex = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
    second == Some('\\') && matches!(last, Some('n' | 'r' | 't'))
        || third == Some('%') && is_hex(second) && is_hex(last)
}

/// Whether credentials follow the name of a scheme, which may be another word's in a sentence.
fn is_of_scheme(scheme: &str, value: &str) -> bool {
    let is_odd = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || matches!(c, '=' | '/' | '+');
    // Such as in a header's value, and not in "bearer shares".
    let is_written = scheme.starts_with('B') && scheme.eq_ignore_ascii_case("bearer") && !is_ordinary(value);
    is_written || value.chars().skip(1).any(is_odd)
}

/// Whether a word has letters and digits, and no two parts that people would read.
pub(super) fn is_mixed(text: &str, least: usize) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.~:".contains(&byte);
    text.len() >= least
        && text.bytes().all(is_word)
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().filter(u8::is_ascii_alphabetic).count() >= 4
        && uuid::Uuid::try_parse(text).is_err()
        && entropy(text) >= 3.0
}

/// Whether a long word is neither a name nor a path, by the mixture of its characters.
fn is_random(text: &str) -> bool {
    let is_path = text.contains('/') && !text.contains(['+', '=']);
    !is_path && is_mixed(text, 40) && is_random_letters(text)
}

fn is_random_letters(text: &str) -> bool {
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    let all = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (all || is_hex) && entropy(text) >= if is_hex { 3.0 } else { 4.0 }
}

/// Bits for each character, by how often each occurs.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let length = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    let share = |count: &u32| f64::from(*count) / length;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).log2()).sum()
}

#[cfg(test)]
mod tests;
