//! `[status]`: which values of a job are its word, its times, its result and so on.

use super::{plain_path, source};
use crate::{
    job::JobState,
    vendors::declared::{
        path::{Path, Root, Step},
        place::Content,
        reader::{Log, Node, Section},
        source::{Names, Source},
        table::STATES,
        time::TimeRule,
    },
};

/// Most parts of a word.
const MOST_PARTS: usize = 4;

/// Which values of a job are what.
#[derive(Debug)]
pub(in crate::vendors::declared) struct StatusRules {
    /// The job's own id: parts by their number.
    pub(in crate::vendors::declared) id: Vec<(usize, Source)>,
    pub(in crate::vendors::declared) word: Vec<Source>,
    pub(in crate::vendors::declared) vendor_state: Option<Source>,
    pub(in crate::vendors::declared) job_type: Option<Source>,
    pub(in crate::vendors::declared) description: Option<Source>,
    pub(in crate::vendors::declared) owner: Option<Source>,
    pub(in crate::vendors::declared) vendor_url: Option<Source>,
    pub(in crate::vendors::declared) create_time: Option<TimeRule>,
    pub(in crate::vendors::declared) start_time: Option<TimeRule>,
    pub(in crate::vendors::declared) end_time: Option<TimeRule>,
    pub(in crate::vendors::declared) progress: ProgressRules,
    /// The first that finds an output counts.
    pub(in crate::vendors::declared) results: Vec<ResultRule>,
    pub(in crate::vendors::declared) error: Option<ErrorRule>,
    /// What did not go well in a job that succeeded.
    pub(in crate::vendors::declared) warnings: Vec<Source>,
    pub(in crate::vendors::declared) volatile: Vec<Volatile>,
}

/// How far the job is.
#[derive(Debug, Default)]
pub(in crate::vendors::declared) struct ProgressRules {
    pub(in crate::vendors::declared) percent: Option<Source>,
    pub(in crate::vendors::declared) completed_steps: Option<Source>,
    pub(in crate::vendors::declared) total_steps: Option<Source>,
    pub(in crate::vendors::declared) current_step: Option<Source>,
}

/// The job's output.
#[derive(Debug)]
pub(in crate::vendors::declared) struct ResultRule {
    pub(in crate::vendors::declared) at: Content,
    pub(in crate::vendors::declared) content: ContentRule,
    pub(in crate::vendors::declared) when: Option<Source>,
    pub(in crate::vendors::declared) states: StateFilter,
}

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vendors::declared) enum ContentRule {
    /// A text is text, anything else JSON.
    Auto,
    Json,
    Text,
    Avro,
}

pub(in crate::vendors::declared) const FORMS: [(&str, ContentRule); 4] = [
    ("auto", ContentRule::Auto),
    ("json", ContentRule::Json),
    ("text", ContentRule::Text),
    ("avro", ContentRule::Avro),
];

/// Why the job failed.
#[derive(Debug)]
pub(in crate::vendors::declared) struct ErrorRule {
    pub(in crate::vendors::declared) each: Option<Path>,
    /// The first that finds words counts. Those of `words` may stand a few wrappers deep.
    pub(in crate::vendors::declared) words: Vec<(Source, bool)>,
    pub(in crate::vendors::declared) details: Option<Path>,
    /// Whether the details are the value that the words were found in.
    pub(in crate::vendors::declared) is_whole: bool,
    pub(in crate::vendors::declared) when: Option<Source>,
    pub(in crate::vendors::declared) states: StateFilter,
}

/// In which states a value is looked for.
#[derive(Debug, Default)]
pub(in crate::vendors::declared) struct StateFilter {
    only: Option<Vec<JobState>>,
    never: Vec<JobState>,
}

impl StateFilter {
    pub(in crate::vendors::declared) fn read(keys: &mut Section<'_>, log: &Log<'_>) -> Self {
        let states = |node: &Node<'_>| {
            node.list().iter().filter_map(|node| node.word(log, &STATES)).collect::<Vec<_>>()
        };
        let only = keys.get("in").map(|node| states(&node));
        let never = keys.get("not_in").map(|node| states(&node)).unwrap_or_default();
        Self { only, never }
    }

    /// Whether it allows whatever another one does.
    pub(super) fn includes(&self, other: &Self) -> bool {
        let mut states = STATES.iter().map(|(_, state)| *state).chain([JobState::Unknown]);
        states.all(|state| self.allows(state) || !other.allows(state))
    }

    pub(in crate::vendors::declared) fn allows(&self, state: JobState) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&state)) && !self.never.contains(&state)
    }
}

/// Members of the job that may differ in every response.
#[derive(Debug)]
pub(in crate::vendors::declared) struct Volatile {
    pub(in crate::vendors::declared) object: Path,
    /// Before and after the `*`; the whole name where there is none.
    pub(in crate::vendors::declared) name: (String, Option<String>),
}

impl Volatile {
    fn read(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        const EXAMPLE: &str = "write one such as \"job.run_duration\" or \"job.*_duration\"";
        let text = node.text(log)?;
        let Some((object, name)) = text.rsplit_once('.') else {
            return node.problem(log, format!("is no member of job; did you mean \"job.{text}\"?"));
        };
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*'));
        let object = Path::parse(object).filter(|path| path.root == Root::Job);
        match (object, name.split_once('*')) {
            (Some(object), None) if is_name => Some(Self { object, name: (name.to_owned(), None) }),
            (Some(object), Some((begin, end))) if is_name && !end.contains('*') => {
                Some(Self { object, name: (begin.to_owned(), Some(end.to_owned())) })
            }
            _ => node.problem(log, format!("is no member of job; {EXAMPLE}")),
        }
    }

    /// Whether a path leads to it, or through it.
    pub(super) fn holds(&self, steps: &[Step]) -> bool {
        let object = self.object.steps();
        match steps.strip_prefix(object).and_then(<[Step]>::first) {
            Some(Step::Name(name)) => self.fits(name),
            _ => false,
        }
    }

    /// Whether it leaves another without effect; of two that are alike, the earlier one does.
    pub(super) fn includes(&self, other: &Self, is_earlier: bool) -> bool {
        let is_wider = match (&self.name, &other.name) {
            (one, other) if one == other => is_earlier,
            ((_, Some(_)), (name, None)) => self.fits(name),
            _ => false,
        };
        self.object == other.object && is_wider
    }

    pub(in crate::vendors::declared) fn fits(&self, member: &str) -> bool {
        let (begin, end) = &self.name;
        match end {
            None => member == begin,
            Some(end) => {
                member.len() >= begin.len() + end.len()
                    && member.starts_with(begin.as_str())
                    && member.ends_with(end.as_str())
            }
        }
    }
}

/// The rules, and how many parts a word has even where they can't be used.
pub(super) struct Read {
    pub(super) rules: Option<StatusRules>,
    /// `None` where they are too many.
    pub(super) word_parts: Option<usize>,
}

pub(super) fn read(mut keys: Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Read {
    let word_node = keys.required(log, "word", "where the job's state stands, such as word = \"job.status\"");
    let words = word_node.as_ref().map(Node::list).unwrap_or_default();
    if words.len() > MOST_PARTS
        && let Some(node) = &word_node
    {
        let text = format!(
            "has {} parts, and a word has at most {MOST_PARTS}; join some of them, such as \"job.a ~ '/' ~ job.b\"",
            words.len()
        );
        node.report(log, text);
    }
    let word: Vec<Source> = words.iter().filter_map(|node| source(node, names, log)).collect();
    let id = keys.get("id").map(|node| id_rules(&node, names, log)).unwrap_or_default();
    let mut optional = |key| keys.get(key).and_then(|node| source(&node, names, log));
    let vendor_state = optional("vendor_state");
    let job_type = optional("job_type");
    let description = optional("description");
    let owner = optional("owner");
    let vendor_url = optional("vendor_url");
    let mut time = |key| keys.get(key).and_then(|node| TimeRule::read(&node, names, log));
    let (create_time, start_time, end_time) = (time("create_time"), time("start_time"), time("end_time"));
    let progress = keys.get("progress").map(|node| progress(&node, names, log)).unwrap_or_default();
    let results = keys.get("result").map(|node| results(&node, names, log)).unwrap_or_default();
    let error = keys.get("error").and_then(|node| error(&node, names, log));
    let warnings = keys.get("warnings").map(|node| node.list()).unwrap_or_default();
    let warnings = warnings.iter().filter_map(|node| source(node, names, log)).collect();
    let volatile = keys.get("volatile").map(|node| node.list()).unwrap_or_default();
    let volatile = volatile.iter().filter_map(|node| Volatile::read(node, log)).collect();
    keys.finish(log);
    let word_parts = Some(words.len().max(1)).filter(|parts| *parts <= MOST_PARTS);
    let rules = StatusRules {
        id,
        word,
        vendor_state,
        job_type,
        description,
        owner,
        vendor_url,
        create_time,
        start_time,
        end_time,
        progress,
        results,
        error,
        warnings,
        volatile,
    };
    Read { rules: (rules.word.len() == words.len() && !words.is_empty()).then_some(rules), word_parts }
}

fn id_rules(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Vec<(usize, Source)> {
    if !node.is_table() {
        if names.parts.len() > 1 {
            let parts: Vec<String> = names.parts.iter().map(|part| format!("{part} = \"job...\"")).collect();
            node.report(
                log,
                format!("is one value, and an id has several parts; write {{ {} }}", parts.join(", ")),
            );
            return Vec::new();
        }
        return source(node, names, log).map(|source| (0, source)).into_iter().collect();
    }
    let Some(section) = node.section(log) else { return Vec::new() };
    let mut rules = Vec::new();
    for (key, span, node) in section.entries() {
        match names.parts.iter().position(|part| part == key) {
            Some(place) => rules.extend(source(&node, names, log).map(|source| (place, source))),
            None => log.add(
                span,
                &node.path,
                format!("is no part of id.pattern; write one of {}", names.parts.join(", ")),
            ),
        }
    }
    rules.sort_by_key(|(place, _)| *place);
    rules
}

fn progress(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> ProgressRules {
    let Some(mut keys) = node.section(log) else { return ProgressRules::default() };
    let mut optional = |key| keys.get(key).and_then(|node| source(&node, names, log));
    let rules = ProgressRules {
        percent: optional("percent"),
        completed_steps: optional("completed_steps"),
        total_steps: optional("total_steps"),
        current_step: optional("current_step"),
    };
    keys.finish(log);
    rules
}

fn results(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Vec<ResultRule> {
    let nodes = node.list();
    if nodes.is_empty() {
        node.report(log, "is an empty list; write where the output stands, or remove the key");
    }
    nodes.iter().filter_map(|node| result(node, names, log)).collect()
}

fn result(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<ResultRule> {
    const FORM: &str = "say which of json, text and avro they are";
    if !node.is_table() {
        let at = Content::read(node, log)?;
        if at.holds_bytes() {
            return node.problem(log, format!("has bytes, and no content_type; write a table to {FORM}"));
        }
        return Some(ResultRule {
            at,
            content: ContentRule::Auto,
            when: None,
            states: StateFilter::default(),
        });
    }
    let mut keys = node.section(log)?;
    let at_node = keys.required(log, "at", "where the output stands, such as at = \"job.output\"");
    let at = at_node.as_ref().and_then(|node| Content::read(node, log));
    let form = keys.get("content_type");
    let content = form.as_ref().map_or(Some(ContentRule::Auto), |node| node.word(log, &FORMS));
    let holds_bytes = at.as_ref().map(Content::holds_bytes);
    match (holds_bytes, content, form.as_ref(), &at_node) {
        (Some(true), Some(ContentRule::Auto), Some(node), _)
        | (Some(true), Some(ContentRule::Auto), None, Some(node)) => {
            node.report(log, format!("has bytes; write content_type to {FORM}"));
        }
        (Some(false), Some(ContentRule::Avro), Some(node), _) => {
            let text = "is for bytes, which JSON has in a text; write latin1 or base64 behind at, such as \
                        \"job.x | base64\"";
            node.report(log, text);
        }
        _ => {}
    }
    let when = keys.get("when").and_then(|node| source(&node, names, log));
    let states = StateFilter::read(&mut keys, log);
    keys.finish(log);
    Some(ResultRule { at: at?, content: content?, when, states })
}

fn error(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<ErrorRule> {
    let mut keys = node.section(log)?;
    let each = keys.get("each").and_then(|node| plain_path(&node, Root::Job, log));
    let mut roots = names.roots.to_vec();
    if each.is_some() {
        roots.push("item");
    }
    let inner = Names { roots: &roots, ..*names };
    let (message, words) = (keys.get("message"), keys.get("words"));
    let nodes = [(message, false), (words, true)].into_iter().flat_map(|(node, is_wrapped)| {
        let list = node.map(|node| node.list()).unwrap_or_default();
        list.into_iter().map(move |node| (node, is_wrapped))
    });
    let nodes: Vec<(Node<'_>, bool)> = nodes.collect();
    if nodes.is_empty() {
        keys.report(log, "has no message; write message = \"job.error\", or words with several");
    }
    let words = nodes
        .iter()
        .filter_map(|(node, is_wrapped)| Some((source(node, &inner, log)?, *is_wrapped)))
        .collect();
    let details = keys.get("details").and_then(|node| plain_path(&node, Root::Job, log));
    let whole = keys.get("whole");
    if let Some(node) = &whole
        && (details.is_some() || each.is_some())
    {
        node.report(log, "stands beside details or each; keep one of them");
    }
    let is_whole = whole.and_then(|node| node.flag(log)).unwrap_or(false);
    let when = keys.get("when").and_then(|node| source(&node, names, log));
    let states = StateFilter::read(&mut keys, log);
    keys.finish(log);
    Some(ErrorRule { each, words, details, is_whole, when, states })
}

impl StatusRules {
    /// The texts, by their keys.
    pub(in crate::vendors::declared) fn texts(&self) -> [(&'static str, Option<&Source>); 5] {
        let Self { vendor_state, job_type, description, owner, vendor_url, .. } = self;
        [
            ("vendor_state", vendor_state.as_ref()),
            ("job_type", job_type.as_ref()),
            ("description", description.as_ref()),
            ("owner", owner.as_ref()),
            ("vendor_url", vendor_url.as_ref()),
        ]
    }

    /// The times, by their keys.
    pub(in crate::vendors::declared) fn times(&self) -> [(&'static str, Option<&TimeRule>); 3] {
        let Self { create_time, start_time, end_time, .. } = self;
        [
            ("create_time", create_time.as_ref()),
            ("start_time", start_time.as_ref()),
            ("end_time", end_time.as_ref()),
        ]
    }

    /// Every value that is read, but for plain paths from the job.
    pub(in crate::vendors::declared) fn sources(&self) -> Vec<&Source> {
        let Self { id, word, progress, results, error, warnings, .. } = self;
        let texts = self.texts().into_iter().chain(progress.values());
        id.iter()
            .map(|(_, source)| source)
            .chain(word)
            .chain(texts.filter_map(|(_, source)| source))
            .chain(self.times().into_iter().filter_map(|(_, rule)| Some(&rule?.at)))
            .chain(error.iter().flat_map(|rule| &rule.words).map(|(source, _)| source))
            .chain(error.iter().filter_map(|rule| rule.when.as_ref()))
            .chain(results.iter().filter_map(|rule| rule.when.as_ref()))
            .chain(warnings)
            .collect()
    }
}

impl ProgressRules {
    /// By their keys.
    pub(in crate::vendors::declared) fn values(&self) -> [(&'static str, Option<&Source>); 4] {
        let Self { percent, completed_steps, total_steps, current_step } = self;
        [
            ("progress.percent", percent.as_ref()),
            ("progress.completed_steps", completed_steps.as_ref()),
            ("progress.total_steps", total_steps.as_ref()),
            ("progress.current_step", current_step.as_ref()),
        ]
    }
}
