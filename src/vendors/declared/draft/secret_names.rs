//! Names that secrets have: of members, headers, parameters, variables and options.

use super::tree::snake_case;

/// Words that make the value of a name a secret, wherever they stand in it.
const WORDS: [&str; 67] = [
    "account_key",
    "csrf",
    "encryption_key",
    "jwt",
    "master_key",
    "otp",
    "totp",
    "passcode",
    "pin",
    "session_key",
    "shared_key",
    "signing_key",
    "xsrf",
    "token",
    "secrets",
    "passwords",
    "pw",
    "pwd",
    "psk",
    "pass",
    "auth",
    "session_id",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pass_phrase",
    "passkey",
    "authorization",
    "cred",
    "creds",
    "credential",
    "credentials",
    "cookie",
    "signature",
    "apikey",
    "apikeys",
    "api_key",
    "api_keys",
    "access_key",
    "access_keys",
    "private_key",
    "private_keys",
    "secret_key",
    "secret_keys",
    "ssh_key",
    "ssh_keys",
    "rsa_key",
    "pgp_key",
    "gpg_key",
    "hmac_key",
    "deploy_key",
    "app_key",
    "application_key",
    "client_key",
    "consumer_key",
    "license_key",
    "subscription_key",
    "api_tokens",
    "auth_tokens",
    "access_tokens",
    "bearer_tokens",
    "refresh_tokens",
    "session_tokens",
    "connection_string",
    "recovery_codes",
    "backup_codes",
];

/// Ends of names without anything between their words, such as `PGPASSWORD` and `rootpw`.
const ENDS: [&str; 12] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "pw",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "sshkey",
];

/// Words that end as `storepass` does and are about something else.
const PASSES: [&str; 7] = ["bypass", "compass", "encompass", "overpass", "surpass", "trespass", "underpass"];

/// Last words of names whose value is a secret if it looks like one.
const TELLING: [&str; 20] = [
    "key",
    "keys",
    "signature",
    "sig",
    "hmac",
    "code",
    "nonce",
    "salt",
    "seed",
    "cookie",
    "cookies",
    "session",
    "sid",
    "cert",
    "certificate",
    "login",
    "sas",
    "private",
    "grant",
    "ticket",
];

/// Whether a member, a parameter of a query or a header of this name has a secret.
pub(in crate::vendors::declared) fn is_secret_name(name: &str) -> bool {
    let snake = words_of(name);
    let padded = format!("_{snake}_");
    let has = |secret: &&str| padded.contains(&format!("_{secret}_"));
    let last = snake.rsplit('_').next().unwrap_or_default();
    WORDS.iter().any(has)
        || ENDS.iter().any(|end| snake.ends_with(end))
        || last.ends_with("pass") && !PASSES.contains(&last)
        || last == "bearer"
        || matches!(&*snake, "sig" | "auth_key" | "sas" | "jsessionid" | "sessionid" | "phpsessid")
}

/// Whether the values below a member of this name are secrets. What is private is a secret as a
/// text, and may be any object.
pub(super) fn is_secret_member(name: &str, is_object: bool) -> bool {
    is_secret_name(name) || !is_object && last_word(name) == "private"
}

/// Whether a value of this name is a secret if it looks like one.
pub(super) fn is_telling_name(name: &str) -> bool {
    TELLING.contains(&&*last_word(name))
}

/// Whether a text is the name of a secret, such as `Authorization` beside its value.
pub(super) fn is_name_of_secret(text: &str) -> bool {
    text.len() <= 64 && text.split_whitespace().count() <= 4 && is_secret_member(text, false)
}

fn last_word(name: &str) -> String {
    words_of(name).rsplit('_').next().unwrap_or_default().to_owned()
}

/// A name in snake case, with words that follow an acronym on their own (`AWSSecret`) and
/// without numbers, which count secrets (`sessionToken2`).
pub(super) fn words_of(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut spaced = String::new();
    for (index, c) in chars.iter().enumerate() {
        let is_upper = |index: Option<usize>| {
            index.and_then(|index| chars.get(index)).is_some_and(char::is_ascii_uppercase)
        };
        let begins_word =
            c.is_ascii_uppercase() && chars.get(index + 1).is_some_and(char::is_ascii_lowercase);
        if begins_word && is_upper(index.checked_sub(1)) {
            spaced.push('_');
        }
        spaced.push(*c);
    }
    let snake = snake_case(&spaced).replace("o_auth", "oauth");
    let words = snake.split('_').map(|word| word.trim_matches(|c: char| c.is_ascii_digit()));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_in_every_style() {
        for name in [
            "api_key",
            "apiKey",
            "X-Api-Key",
            "access_token",
            "accessToken",
            "client-secret",
            "sig",
            "pw",
            "db_pw",
            "rootpw",
            "pwd",
            "bearer",
            "authBearer",
            "sshKey",
            "SSHKey",
            "sessionToken2",
            "token_2",
            "password1",
            "apiKey2",
            "2Password",
            "AWSSecretKey",
            "APIKey",
            "DBPassword",
            "PGPASSWORD",
            "MYSQL_PWD",
            "SSHPASS",
            "storepass",
            "refreshTokens",
            "Ocp-Apim-Subscription-Key",
            "spring.datasource.password",
            "creds",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "key",
            "code",
            "tokens",
            "max_tokens",
            "id",
            "signed",
            "task_key",
            "status",
            "bypass",
            "compass",
            "bearer_format",
            "OAuth",
            "private",
            "private_endpoint",
            "storage_key",
            "s3",
            "author",
            "step2",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(is_secret_member("private", false) && is_secret_member("rsaPrivate", false));
        assert!(!is_secret_member("private", true) && !is_secret_member("private_endpoint", false));
    }
}
