//! Keys that mean nothing where they stand are reported.

use super::{
    definitions::{GOOD, problems},
    *,
};

const FAULT: &str = "is = \"not_found\"";
const WORD: &str = "word = [\"job.s\", \"job.r\"]";
const RUNNING: &str = "RUNNING = [\"run/*\"]";
const REQUEST: &str = "[request]\npath = \"/{{ params.region }}/jobs/{{ id.a }}/{{ id.b }}\"\n";
const BATCH: &str = "[batch]\npath = \"/{{ params.region }}/jobs\"\nquery = { ids = \"{{ ids | map(attribute='a') | join(',') }}{{ ids | map(attribute='b') | join }}\" }\njobs = \"body.jobs\"\n";

/// That the text in place of another has a problem that begins so.
pub(super) fn reported(cases: &[(&str, &str, &str)]) {
    for (from, to, problem) in cases {
        let found = problems(from, to);
        let is_reported = found.iter().any(|found| found.starts_with(problem));
        assert!(is_reported, "{from} -> {to}\n{problem}\nfound {found:#?}");
    }
}

/// That the text in place of another has no problem.
pub(super) fn accepted(cases: &[(&str, &str)]) {
    for (from, to) in cases {
        assert_eq!(problems(from, to), [""; 0], "{from} -> {to}");
    }
}

#[test]
fn fault_rule_with_a_key_that_its_meaning_does_not_use_is_reported() {
    let beside = |is: &str, key: &str| format!("{FAULT}\n[[faults]]\nstatus = 409\nis = \"{is}\"\n{key}");
    for is in ["forbidden", "throttled", "credentials"] {
        let text = format!(
            "faults[1].message has no effect beside is = {is:?}: callers see the gateway's own words; remove it"
        );
        reported(&[(FAULT, &beside(is, "message = \"body.error\""), &text)]);
    }
    for is in ["not_found", "invalid_id", "forbidden", "rejected"] {
        let text = format!(
            "faults[1].wait_s has no effect beside is = {is:?}, for which nothing waits; remove it, or write is = \"unavailable\" or \"throttled\""
        );
        reported(&[(FAULT, &beside(is, "wait_s = \"body.wait\""), &text)]);
    }
    reported(&[
        (
            FAULT,
            "is = \"not_found\"\nmessage = \"body.error\"",
            "faults[0].message has no effect beside is = \"not_found\" without says; write says = \"no_such_job\", or remove message",
        ),
        (
            FAULT,
            &beside("forbidden", "until = \"body.until\""),
            "faults[1].until has no effect beside is = \"forbidden\"",
        ),
    ]);
    accepted(&[
        (FAULT, "is = \"not_found\"\nsays = \"no_such_job\"\nmessage = \"body.error\""),
        (FAULT, &beside("invalid_id", "message = \"body.error\"")),
        (FAULT, &beside("rejected", "message = \"body.error\"")),
        (FAULT, &beside("unavailable", "message = \"body.error\"")),
        (FAULT, &beside("throttled", "wait_s = \"body.wait\"\nuntil = \"body.until\"")),
    ]);
}

#[test]
fn fault_rule_that_is_never_reached_is_reported() {
    let after = |first: &str, second: &str| {
        format!("{FAULT}\n[[faults]]\n{first}\nis = \"throttled\"\n[[faults]]\n{second}\nis = \"rejected\"")
    };
    let text = "faults[2] is never reached: faults[1] takes every response that it would; put it first";
    for (first, second) in [
        ("status = [400, 409]", "status = 409\nwhen = \"body.x\""),
        ("when = \"body.code == 1\"", "status = 409\nwhen = \"body.code == 1\""),
        ("header = \"x-wait\"", "status = 409\nheader = { X-Wait = \"1\" }"),
        ("content_type = \"text/\"", "content_type = \"text/html\"\nwhen = \"http.status == 409\""),
        ("graphql_code = [\"A\", \"B\"]", "graphql_code = \"A\""),
        ("names_the_id = \"body.m\"", "names_the_id = \"body.m\"\nstatus = 409"),
        ("says = \"no_such_job\"", "says = \"no_such_job\"\nstatus = 409"),
    ] {
        reported(&[(FAULT, &after(first, second), text)]);
    }
    for (first, second) in [
        ("status = 409", "status = [409, 410]"),
        ("when = \"body.code == 1\"", "when = \"body.code == 2\""),
        ("header = { x-wait = \"1\" }", "header = \"x-wait\""),
        ("graphql_code = \"A\"", "graphql_code = [\"A\", \"B\"]"),
        ("status = 409\nwhen = \"body.x\"", "status = 409"),
    ] {
        accepted(&[(FAULT, &after(first, second))]);
    }
    // A rule about the job leaves pages in HTML to the next one.
    accepted(&[(
        FAULT,
        "is = \"not_found\"\n[[faults]]\nstatus = 404\ncontent_type = \"text/html\"\nis = \"unavailable\"",
    )]);
}

#[test]
fn status_that_is_a_word_and_a_fault_is_reported() {
    reported(&[(
        "[status]",
        "[answer]\nstates_by_status = [404]\n[status]",
        "faults[0] takes every response with status 404, which answer.states_by_status has for a word",
    )]);
    accepted(&[("[status]", "[answer]\nstates_by_status = [410]\n[status]")]);
}

#[test]
fn volatile_member_that_is_read_is_reported() {
    let with = |keys: &str| format!("{keys}\n{WORD}");
    for (keys, key) in [
        ("volatile = [\"job.done\"]\nprogress = { percent = \"job.done\" }", "progress.percent"),
        (
            "volatile = [\"job.d*\"]\nprogress = { total_steps = \"1 + (job.done or 0)\" }",
            "progress.total_steps",
        ),
        (
            "volatile = [\"job.x.done\"]\nprogress = { current_step = \"job['x'].done.text\" }",
            "progress.current_step",
        ),
        ("volatile = [\"job.s\"]", "word"),
        ("volatile = [\"job.a\"]", "id"),
        ("volatile = [\"job.end\"]\nend_time = { at = \"job.end\", unit = \"s\" }", "end_time"),
        ("volatile = [\"job.o\"]\nowner = \"job.o.name\"", "owner"),
    ] {
        let text = format!(
            "status.volatile[0] is read by status.{key}, whose changes nobody would see; remove it here, or read another member"
        );
        reported(&[(WORD, &with(keys), &text)]);
    }
    accepted(&[
        (WORD, &with("volatile = [\"job.x.done\"]\nprogress = { percent = \"job.y.done\" }")),
        // At the end only, which is a change of the state too.
        (WORD, &with("volatile = [\"job.at\"]\nend_time = \"job.at if job.s == 'end'\"")),
        (WORD, &with("volatile = [\"job.log\"]\nerror = { message = \"job.log\", in = [\"FAILED\"] }")),
        (WORD, &with("volatile = [\"job.x\"]\ndescription = \"'job.x'\"")),
    ]);
    for members in ["[\"job.t\", \"job.t\"]", "[\"job.*\", \"job.t\"]", "[\"job.*\", \"job.*\"]"] {
        let text = "status.volatile[1] stands in the list already, as it is or by a *; keep one";
        let keys = with(&format!("volatile = {members}")).replace("job.*", "job.t*");
        reported(&[(WORD, &keys, text)]);
    }
}

#[test]
fn format_without_a_zone_or_a_directive_is_reported() {
    let time = |keys: &str| format!("end_time = {{ at = \"job.end\", {keys} }}\n{WORD}");
    reported(&[
        (
            WORD,
            &time("format = \"%Y-%m-%d\""),
            "status.end_time.format reads no zone, so that no time is known; add zone = \"UTC\", or an offset",
        ),
        (
            WORD,
            &time("format = \"YYYY-MM-DD\", zone = \"UTC\""),
            "status.end_time.format is no format of strftime; write one such as \"%Y-%m-%d %H:%M:%S\"",
        ),
    ]);
    accepted(&[
        (WORD, &time("format = \"%Y-%m-%d %H:%M\", zone = \"UTC\"")),
        (WORD, &time("format = \"%Y-%m-%d %z\"")),
    ]);
}

#[test]
fn rule_for_states_that_never_occur_is_reported() {
    let never = "has states that no word of [states] is, so nothing is ever read; write one that occurs";
    let file = |keys: &str| format!("{FAULT}\n[[files]]\nname = \"x\"\npath = \"/x\"\n{keys}");
    reported(&[
        (FAULT, &file("in = [\"EXPIRED\", \"CANCELLED\"]"), &format!("files[0].in {never}")),
        (
            WORD,
            &format!("result = {{ at = \"job.x\", in = \"EXPIRED\" }}\n{WORD}"),
            &format!("status.result.in {never}"),
        ),
        (
            WORD,
            &format!("error = {{ message = \"job.x\", in = [\"EXPIRED\"] }}\n{WORD}"),
            &format!("status.error.in {never}"),
        ),
        (
            FAULT,
            &file("not_in = [\"PENDING\"]"),
            "files[0].not_in has no effect: no word of [states] is one of these; remove it",
        ),
        (
            FAULT,
            &file("in = [\"FAILED\"]\nnot_in = [\"RUNNING\"]"),
            "files[0].not_in stands beside in, which lists the only states; keep one of them",
        ),
        (
            FAULT,
            &file("in = [\"FAILED\", \"FAILED\"]"),
            "files[0].in[1] is \"FAILED\", which stands in the list twice; keep one",
        ),
    ]);
    accepted(&[(FAULT, &file("in = [\"FAILED\", \"EXPIRED\"]")), (FAULT, &file("not_in = [\"RUNNING\"]"))]);
}

#[test]
fn each_that_nothing_reads_is_reported() {
    let file =
        |keys: &str| format!("{FAULT}\n[[files]]\nname = \"{{{{ item.n }}}}\"\neach = \"job.f\"\n{keys}");
    reported(&[
        (
            FAULT,
            &file("path = \"/items/x\""),
            "files[0].each gives every element the same location, which does not read item; write {{ item }} there, or when in place of each",
        ),
        (
            WORD,
            &format!("error = {{ each = \"job.e\", message = \"job.m\" }}\n{WORD}"),
            "status.error.each has no effect: message does not read item; write one such as \"item.message\"",
        ),
    ]);
    accepted(&[
        (FAULT, &file("path = \"/x/{{ item.id }}\"")),
        (FAULT, &file("path = \"/x\"\nquery = { id = \"{{ item.id }}\" }")),
        (FAULT, &file("url = \"{{ item.url }}\"")),
        (WORD, &format!("error = {{ each = \"job.e\", words = [\"job.m\", \"item.m\"] }}\n{WORD}")),
    ]);
}

#[test]
fn time_with_keys_that_exclude_each_other_is_reported() {
    let time = |keys: &str| format!("end_time = {{ at = \"job.t\", {keys} }}\n{WORD}");
    reported(&[
        (
            WORD,
            &time("unit = \"ms\", format = \"%Y\""),
            "status.end_time.unit stands beside format: a number has a unit, and a text a format; keep one of them",
        ),
        (
            WORD,
            &time("unit = \"s\", zone = \"UTC\""),
            "status.end_time.zone has no effect beside unit: a number since 1970 has no zone; remove it",
        ),
        (
            WORD,
            &time("format = \"%Y-%m-%dT%H:%M:%S%z\", zone = \"UTC\""),
            "status.end_time.zone has no effect beside format, whose %z reads the zone; remove it",
        ),
    ]);
    accepted(&[(WORD, &time("zone = \"UTC\"")), (WORD, &time("unit = \"auto_ms\", zone = \"UTC\""))]);
}

#[test]
fn words_that_any_word_fits_are_reported() {
    reported(&[
        (
            RUNNING,
            "CANCELLED = [\"*/*\"]",
            "states.CANCELLED[0] is \"*/*\", which any word fits: one new word of the vendor's would end jobs as CANCELLED; write the words",
        ),
        (
            RUNNING,
            "RUNNING = [\"*/*\"]\notherwise = \"PENDING\"",
            "states.otherwise has no effect beside \"*/*\" in RUNNING, which any word fits; keep one",
        ),
        (
            RUNNING,
            "RUNNING = [\"run/*\"]\nno_failure = \"because\"",
            "states has no_failure beside a word that is FAILED, CANCELLED or EXPIRED; remove no_failure",
        ),
    ]);
    accepted(&[
        (RUNNING, "RUNNING = [\"*/*\"]"),
        (RUNNING, "RUNNING = [\"run/*\"]\notherwise = \"RUNNING\""),
    ]);
}

#[test]
fn answer_and_batch_without_what_they_need_are_reported() {
    reported(&[
        (
            "[status]",
            "[answer]\nbody = \"optional\"\n[status]",
            "answer.body has no effect: nothing reads http, and an answer without content has nothing else",
        ),
        (
            REQUEST,
            &format!("{BATCH}[answer]\njob = \"body.job\"\n"),
            "answer.job has no effect without [request]: batch.jobs says where the jobs of a batch stand; remove it",
        ),
        (
            REQUEST,
            &format!("{BATCH}[answer]\nstates_by_status = [422]\n"),
            "answer.states_by_status needs [request]: a batch has one status for all its jobs",
        ),
    ]);
    let partial = GOOD.replace(REQUEST, BATCH).replace(", b = \"job.b\"", "");
    assert_eq!(
        Definition::parse(&partial).unwrap_err().problems[0].text,
        "has a list, whose jobs are matched by status.id, which lacks b: none would be found; write it there, or by_id = true for an object"
    );
    accepted(&[(REQUEST, BATCH)]);
}

#[test]
fn parameters_and_credentials_that_nothing_reads_are_reported() {
    const BASIC: &str = "[credentials.basic]";
    const EXCHANGE: &str = "[credentials.exchange]\npath = \"/login\"\ntoken = \"body.token\"\n";
    // The definition has one parameter that it does not use.
    let unused = "params.region is not used; write {{ params.region }} where it belongs, or remove it";
    reported(&[
        ("[params]", "[params]\nzone = { type = \"text\" }", "params.zone is not used"),
        (
            "[status]",
            "headers = { x-y = \"{{ params.region ~ 'x' }}\" }\n[params.other]\n[status]",
            "params.other is not used",
        ),
        (
            BASIC,
            "[credentials.basic]\nfields = [\"tenant\"]",
            "credentials.basic.fields[0] is not used; write {{ tenant }} in the request, or remove it",
        ),
        (
            "[credentials.none]",
            "[credentials.none]\nfields = [\"tenant\"]\nheaders = { x-tenant = \"{{ tenant }}\" }",
            "credentials.none.fields[0] has no effect: a backend without credentials can't set it; remove it",
        ),
        (
            BASIC,
            EXCHANGE,
            "credentials.exchange does not send its secret; write {{ password }} in the request",
        ),
        (
            BASIC,
            &format!("{EXCHANGE}json = {{ p = \"{{{{ password }}}}\" }}\nsend_as = {{}}"),
            "credentials.exchange.send_as has no effect; write header or scheme in it, or remove it",
        ),
    ]);
    let without = GOOD.replace("/{{ params.region }}", "");
    assert_eq!(Definition::parse(&without).unwrap_err().problems[0].to_string(), format!("13:10: {unused}"));
    accepted(&[
        (BASIC, &format!("{EXCHANGE}json = {{ p = \"{{{{ password }}}}\" }}")),
        (BASIC, "[credentials.basic]\nfields = [\"tenant\"]\nheaders = { x-tenant = \"{{ tenant }}\" }"),
    ]);
}

#[test]
fn error_and_categories_with_keys_of_no_use_are_reported() {
    let error = |keys: &str| format!("error = {{ {keys} }}\n{WORD}");
    let file = |keys: &str| format!("{FAULT}\n[[files]]\nname = \"x\"\nurl = \"{{{{ item.url }}}}\"\n{keys}");
    let whole = "status.error.whole has no effect: no message is a plain path, whose value would be the details; \
                 write one such as \"job.error\", or remove it";
    reported(&[
        (WORD, &error("message = \"params.region\", whole = true"), whole),
        (WORD, &error("message = \"job.e or 'unknown'\", whole = true"), whole),
        (
            WORD,
            &error("message = \"job.e\", details = \"job.e\", whole = true"),
            "status.error.whole stands beside details or each; keep one of them",
        ),
        (
            WORD,
            &error("each = \"job.e\", message = \"item.m\", whole = true"),
            "status.error.whole stands beside details or each; keep one of them",
        ),
        (
            FAULT,
            &file("each = \"job.f\"\nby_category = [\"a\", \"a\"]"),
            "files[0].by_category[1] is \"a\", which stands in the list twice; keep one",
        ),
        (
            FAULT,
            &file("each = \"job.f\"\nby_category = []\ncategory = \"c\""),
            "files[0].category stands beside by_category, which gives each file its category; remove one",
        ),
        (
            FAULT,
            &file("by_category = [\"a\"]").replace("item.url", "job.url"),
            "files[0] has by_category without each; write the object of lists as each",
        ),
    ]);
    accepted(&[
        (WORD, &error("message = [\"job.e\", \"job.f or 'unknown'\"], whole = true")),
        (FAULT, &file("each = \"job.f\"\nby_category = []")),
    ]);
}
