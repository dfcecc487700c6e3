//! The text of a begun definition.

use std::fmt::Write as _;

use super::{
    Content, Draft, Found, Start,
    asked::{Template, Value},
    fields::quoted,
    place::At,
    refusal,
    volatile::File,
    write_cases,
};

/// Words in place of those that one answer can't show, to read the answer with.
const MISSING: [&str; 2] = ["fill in, a word of success", "fill in, a word of failure"];

/// Lines of a table: key, value and comment.
type Lines = Vec<(String, String, String)>;

/// The draft of what was found.
pub(super) fn draft(start: &Start<'_>, found: &Found, redacted: Vec<String>) -> Draft {
    let job_id = found.job_id();
    let definition = text(start, found, false);
    let cases = write_cases::text(found, &found.pasted.body, &redacted, &text(start, found, true), &MISSING);
    let base_url = found.has_request.then(|| found.template.origin.clone());
    let params =
        found.template.params.iter().map(|param| (param.name.clone(), param.value.clone())).collect();
    let secret = if found.template.secret.is_some() { "api_key" } else { "bearer" };
    Draft { definition, cases, job_id, base_url, params, secret, redacted }
}

/// The definition; with words for every end where it has to be complete.
fn text(start: &Start<'_>, found: &Found, is_complete: bool) -> String {
    let mut text = String::new();
    if let Some(schema) = start.schema {
        text = format!("#:schema {schema}\n");
    }
    text += "# Begun by `jobwatch vendor new` from one answer. Its guesses have their reasons beside them; what no\n\
             # single answer shows is marked with \"fill in:\".\n";
    let line = |key: &str, value: String, why: &str| (key.to_owned(), value, why.to_owned());
    let title = title(start.name);
    let docs =
        if found.has_request { found.template.origin.clone() } else { "https://fill-in.example".to_owned() };
    text += &table(&vec![
        line("format", "1".to_owned(), ""),
        line("name", quoted(start.name), ""),
        line("version", quoted("0.1.0"), ""),
        line("title", quoted(&title), "fill in: the vendor and its kind of jobs"),
        line("docs", quoted(&docs), "fill in: the page that documents the API"),
        line("verified", "false".to_owned(), "fill in: true, once the words are those of that page"),
    ]);
    text += &params(found);
    text += &id(found);
    text += &credentials(&found.template);
    text += &request(found);
    text += &answer(found);
    text += &status(found);
    text += &states(found, is_complete);
    text += &faults(found);
    text += &found.fields.files.iter().map(|file| files(found, file)).collect::<String>();
    text
}

/// `my-vendor` is `My vendor`.
fn title(name: &str) -> String {
    let spaced = name.replace('-', " ");
    let mut chars = spaced.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// A text of an answer in a comment, which is one line without control characters.
pub(super) fn comment(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Lines with their `=` and their comments in columns.
fn table(lines: &Lines) -> String {
    let width = lines.iter().map(|(key, ..)| key.len()).max().unwrap_or_default();
    let values = lines.iter().filter(|(_, value, why)| !why.is_empty() && value.len() <= 48);
    let column = values.map(|(_, value, _)| value.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (key, value, why) in lines {
        let line = format!("{key:width$} = {value}");
        let why = comment(why);
        let line = match &*why {
            "" => line,
            why if value.len() > 48 => format!("# {why}\n{line}"),
            why => format!("{line}{}    # {why}", " ".repeat(column.saturating_sub(value.len()))),
        };
        text += &line;
        text.push('\n');
    }
    text
}

fn params(found: &Found) -> String {
    let params = &found.template.params;
    if params.is_empty() {
        return String::new();
    }
    let mut text = "\n[params]                                # the same for every job of a backend, by the path; if not, make them parts of the id\n".to_owned();
    let lines = params.iter().map(|param| {
        (param.name.clone(), format!("{{ type = {} }}", quoted(Template::kind(param))), String::new())
    });
    text += &table(&lines.collect());
    text
}

fn id(found: &Found) -> String {
    let names: Vec<String> = found.parts.iter().map(|part| format!("{{{}}}", part.name)).collect();
    let mut lines = vec![("pattern".to_owned(), quoted(&names.join("/")), String::new())];
    for part in &found.parts {
        if part.kind() != "text" {
            lines.push((part.name.clone(), quoted(part.kind()), format!("as {} is", shortened(&part.value))));
        }
    }
    format!(
        "\n[id]                                    # what callers write in job_id: here {}\n{}",
        quoted(&shortened(&found.job_id())),
        table(&lines)
    )
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}

fn credentials(template: &Template) -> String {
    match &template.secret {
        Some(name) => format!("\n[credentials.query]                     # the request had its secret there\nname = {}\n", quoted(name)),
        None => "\n[credentials.bearer]                    # fill in: how the API is signed in to; also none, header, query, basic, oauth2, exchange\n".to_owned(),
    }
}

fn request(found: &Found) -> String {
    let Found { template, content, parts, is_batch, .. } = found;
    let name = parts.last().map(|part| part.name.as_str()).unwrap_or_default();
    let all = |filter: &str| format!("{{{{ ids | map(attribute='{name}') | {filter} }}}}");
    let one = format!("{{{{ id.{name} }}}}");
    let mut lines = Lines::new();
    let mut put = |key: &str, value: String, why: &str| lines.push((key.to_owned(), value, why.to_owned()));
    let mut path = template.path.clone();
    if *is_batch {
        for part in parts {
            path = path.replace(&format!("{{{{ id.{} }}}}", part.name), &all("join(',')"));
        }
    }
    let doubtful = template.doubtful.join(" and ");
    let why = match (found.has_request, doubtful.is_empty()) {
        (false, _) => "fill in: the path behind that of base_url".to_owned(),
        (true, true) => String::new(),
        (true, false) => {
            format!(
                "fill in: is {} the same for every job? If not, make it a part of the id",
                shortened(&doubtful)
            )
        }
    };
    if path.is_empty() {
        "/fill-in".clone_into(&mut path);
    }
    put("path", quoted(&path), &why);
    if !template.query.is_empty() {
        let pair = |(key, value): &(String, Value)| {
            let value = match value {
                Value::Literal(text) => text.clone(),
                Value::Part(_) | Value::Parts(_) if *is_batch => all("join(',')"),
                Value::Part(part) | Value::Parts(part) => format!("{{{{ id.{part} }}}}"),
            };
            format!("{} = {}", toml_key(key), quoted(&value))
        };
        let pairs: Vec<String> = template.query.iter().map(pair).collect();
        put("query", format!("{{ {} }}", pairs.join(", ")), "");
    }
    match content {
        Content::None => {}
        Content::Json if *is_batch => put(
            "json",
            format!("{{ ids = {} }}", quoted(&all("list"))),
            "fill in: the content that the API takes",
        ),
        Content::Json => {
            let key = toml_key(member_of(found).unwrap_or(name));
            put("json", format!("{{ {key} = {} }}", quoted(&one)), "fill in: the content that the API takes");
        }
        Content::GraphQl(query) => {
            put(
                "graphql.query",
                quoted(query),
                "made from the members of the answer; fill in: the query that was sent, with the id as a variable",
            );
            let variables = if *is_batch {
                format!("{{ ids = {} }}", quoted(&all("list")))
            } else {
                format!("{{ id = {} }}", quoted(&one))
            };
            put("graphql.variables", variables, "");
        }
    }
    if !is_batch {
        return format!("\n[request]\n{}", table(&lines));
    }
    let (jobs, why) = match &found.at {
        At::List { list, .. } => (list, "a list, in which jobs are matched by status.id"),
        At::ById { object } | At::Path(object) => (object, "an object that has the jobs by their ids"),
    };
    lines.push(("jobs".to_owned(), quoted(jobs), why.to_owned()));
    if matches!(found.at, At::ById { .. }) {
        lines.push(("by_id".to_owned(), "true".to_owned(), String::new()));
    }
    lines.push(("max".to_owned(), "50".to_owned(), "fill in: the most jobs in one request".to_owned()));
    let needs_ids = "# A job that is not in the answer does not exist.\n\
                     # fill in: how the request names the jobs, such as\n\
                     # query = { ids = \"{{ ids | map(attribute='";
    let text = table(&lines);
    let hint = if text.contains("{{ ids") {
        String::new()
    } else {
        format!("{needs_ids}{name}') | join(',') }}}}\" }}\n")
    };
    format!("\n[batch]                                 # several jobs in one request\n{hint}{text}")
}

/// The name of the member that has the id, which is what most vendors' requests call it.
fn member_of(found: &Found) -> Option<&str> {
    let (_, path) = found.id.first()?;
    path.rsplit('.').next().filter(|name| !name.contains('['))
}

fn toml_key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if is_bare { key.to_owned() } else { quoted(key) }
}

fn answer(found: &Found) -> String {
    let job = match &found.at {
        _ if found.is_batch => None,
        At::Path(path) if path == "body" => None,
        At::Path(path) => Some((path.clone(), String::new())),
        At::List { list, index, count } => {
            let why = if *count > 1 {
                format!("one of {count}, by its id; fill in: which one is the job asked for?")
            } else {
                "a list with the one job".to_owned()
            };
            Some((format!("{list}[{index}]"), why))
        }
        At::ById { object } => Some((object.clone(), String::new())),
    };
    let mut lines: Lines = job.map(|(job, why)| ("job".to_owned(), quoted(&job), why)).into_iter().collect();
    let (source, why) = refusal::source(&found.fields);
    lines.push(("refusal".to_owned(), quoted(&source), why.to_owned()));
    format!("\n[answer]\n{}", table(&lines))
}

fn status(found: &Found) -> String {
    let mut lines = Lines::new();
    let mut text = "\n[status]\n".to_owned();
    match &found.id[..] {
        [] if found.is_batch => lines.extend(match &found.at {
            At::ById { .. } => None,
            _ => {
                Some(("id".to_owned(), quoted("job.id"), "fill in: the member with the job's id".to_owned()))
            }
        }),
        [] => text += "# No member has the id, so an answer about another job can't be told apart.\n",
        [(_, path)] if found.parts.len() == 1 => lines.push(("id".to_owned(), quoted(path), String::new())),
        several => {
            let pairs: Vec<String> =
                several.iter().map(|(name, path)| format!("{name} = {}", quoted(path))).collect();
            lines.push(("id".to_owned(), format!("{{ {} }}", pairs.join(", ")), String::new()));
        }
    }
    let sources: Vec<String> = found.word.sources.iter().map(|source| quoted(source)).collect();
    let word = if let [source] = &sources[..] { source.clone() } else { format!("[{}]", sources.join(", ")) };
    lines.push(("word".to_owned(), word, found.word.why.clone()));
    lines.extend(
        found
            .fields
            .status
            .iter()
            .map(|guess| (guess.key.to_owned(), guess.value.clone(), guess.why.clone())),
    );
    text + &table(&lines)
}

fn states(found: &Found, is_complete: bool) -> String {
    const STATES: [&str; 6] = ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"];
    let word = &found.word;
    let mut text = "\n[states]\n".to_owned();
    if !word.is_complete {
        text += "# fill in: every word of the vendor's documentation\n\
                 # A word that is not here is JOB_STATE_UNSPECIFIED, and the job goes on. There are RETRYING and CANCELLING, too.\n";
    }
    if let Some(unknown) = &word.unknown {
        let _ = writeln!(
            text,
            "# fill in: the word of this answer is {:?}; which state is it?",
            comment(unknown)
        );
    }
    let has_other_end =
        word.states.iter().any(|(state, _)| matches!(*state, "FAILED" | "CANCELLED" | "EXPIRED"));
    let mut lines = Lines::new();
    let others = word.states.iter().map(|(state, _)| *state).filter(|state| !STATES.contains(state));
    for state in STATES.into_iter().chain(others) {
        let mut words: Vec<String> =
            word.states.iter().filter(|(own, _)| *own == state).map(|(_, word)| quoted(word)).collect();
        let is_missing = words.is_empty() && (state == "SUCCEEDED" || state == "FAILED" && !has_other_end);
        if is_complete && is_missing {
            let missing = MISSING[usize::from(state == "FAILED")];
            words.push(quoted(&word.form.replace("{}", missing)));
        }
        if words.is_empty() && word.is_complete {
            continue;
        }
        let why = if is_missing { "fill in: at least one" } else { "" };
        lines.push((state.to_owned(), format!("[{}]", words.join(", ")), why.to_owned()));
    }
    text + &table(&lines)
}

/// A location by its name.
fn files(found: &Found, file: &File) -> String {
    let own = &found.template.origin;
    let others: Vec<&String> = file.origins.iter().filter(|origin| *origin != own).collect();
    let encrypted: Vec<String> =
        others.iter().filter(|origin| origin.starts_with("https://")).map(|origin| quoted(origin)).collect();
    let (comment, why) = if file.origins.is_empty() {
        ("a location, not set here; of another origin it needs origin = \"..\"", "")
    } else if others.is_empty() {
        ("a location by its name", "")
    } else if encrypted.is_empty() {
        ("at another origin without https, so it is listed and not downloaded", "")
    } else if found.has_request {
        ("at another origin: the backend allows it with allow_origins", "fill in: are other files elsewhere?")
    } else {
        (
            "at another origin: the backend allows it with allow_origins",
            "fill in: remove it if it is the origin of base_url",
        )
    };
    let line = |key: &str, value: String, why: &str| (key.to_owned(), value, why.to_owned());
    let mut lines = vec![
        line("in", "[\"SUCCEEDED\"]".to_owned(), ""),
        line("each", quoted(&file.path), ""),
        line("name", quoted(&file.name), ""),
        line("url", quoted("{{ item }}"), ""),
    ];
    match &encrypted[..] {
        [] => {}
        [origin] => lines.push(line("origin", origin.clone(), why)),
        several => lines.push(line("origin", format!("[{}]", several.join(", ")), why)),
    }
    format!("\n[[files]]                               # {comment}\n{}", table(&lines))
}

fn faults(found: &Found) -> String {
    if found.is_batch {
        return "\n# A job that is not in the answer of a batch does not exist. Further rules: see [[faults]] in docs/vendors.md.\n".to_owned();
    }
    let hint = "\n# fill in: how the API answers for a job that does not exist\n# 401, 403, 429 and 5xx need no rule.\n[[faults]]\n";
    let rule = match (&found.content, &found.at) {
        // An error is no answer about the job.
        (Content::GraphQl(_), At::Path(path)) => {
            format!(
                "when = {}\n",
                quoted(&format!("body.data is mapping and not {path} and not body.errors"))
            )
        }
        _ => "status = 404\n".to_owned(),
    };
    let width = if rule.starts_with("status") { "is     = " } else { "is   = " };
    format!("{hint}{rule}{width}\"not_found\"\n")
}
