//! Both encodings say the same.

use super::*;

#[test]
fn binary_request_has_the_vendors_bytes() {
    let tagged = JobRef::new("db", "4611686018427387907").with_tag("t1");
    for (job, body) in [
        (JobRef::new("db", "2"), b"\x04\x00".as_slice()),
        (tagged, b"\x86\x80\x80\x80\x80\x80\x80\x80\x80\x01\x02\x0ejob_tag\x04t1\x00"),
    ] {
        let request = binary().request(&[job]);
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "https://host:8082/gpudb-0/get/job");
        assert_eq!(request.headers()["content-type"], "application/octet-stream");
        assert_eq!(request.headers()["accept"], "application/octet-stream");
        assert_eq!(request.body(), body);
    }
}

#[test]
fn recorded_binary_responses_are_read() {
    let octets = |status, body: &'static [u8]| {
        observations(&binary(), &[job()], &answer(status, "application/octet-stream", body))
    };
    let running =
        b"\x04OK\x00\x20get_job_response\x32\x04/x\x0eRUNNING\x01\x00\x00\x0cbinary\x00\x00\x00\x00\x00";
    let seen = octets(200, running).unwrap().remove(0).unwrap();
    assert_eq!((seen.state, &*seen.job_type), (JobState::Running, "/x"));
    assert_eq!(
        seen.vendor_payload,
        r#"{"endpoint":"/x","job_status":"RUNNING","running":true,"progress":0,"successful":false,"response_encoding":"binary","job_response":"","job_response_str":"","status_map":{},"info":{}}"#
    );
    let missing = b"\x0aERROR\x3eJob id 999 not found (J/TEST:1)\x08none\x00\x00";
    assert_eq!(octets(400, missing), Ok(vec![Err(JobFault::NotFound)]));
    assert_eq!(octets(200, missing), Ok(vec![Err(JobFault::NotFound)]));
    // A wrapper around something else, and what is no wrapper.
    let other = b"\x04OK\x00\x08none\x02\x00\x00";
    assert_eq!(octets(200, other), Ok(vec![Err(NO_RECORD)]));
    for (status, body) in [(200, b"\x04OK\x00".as_slice()), (200, b""), (200, b"\xfe\xff\xff\xff\x0fOK")] {
        assert_eq!(octets(status, body), Err(malformed("not the documented wrapper")));
    }
    assert_eq!(octets(200, b"\x04ok\x00\x00\x00\x00"), Err(malformed("a status other than OK and ERROR")));
    assert!(matches!(octets(400, b"\x04"), Err(BackendFault { kind: FaultKind::Rejected { .. }, .. })));
    let json = observations(&binary(), &[job()], &answer(200, "application/json", wrapped("{}")));
    assert_eq!(json, Err(malformed("not application/octet-stream")));
}

/// A record's values, in the order of its schema.
#[derive(Clone, Debug)]
struct Sample {
    texts: [String; 4],
    running: bool,
    progress: i32,
    successful: bool,
    response: Vec<u8>,
    maps: [Vec<(String, String)>; 2],
}

impl Sample {
    fn json(&self) -> String {
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let map = |entries: &[(String, String)]| {
            let entries = entries.iter().map(|(key, value)| format!("{}:{}", text(key), text(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        };
        let [endpoint, word, encoding, response_str] = self.texts.each_ref().map(|value| text(value));
        let latin1: String = self.response.iter().copied().map(char::from).collect();
        let (running, progress, successful) = (self.running, self.progress, self.successful);
        let (response, [status_map, info]) = (text(&latin1), self.maps.each_ref().map(|value| map(value)));
        format!(
            r#"{{"endpoint":{endpoint},"job_status":{word},"running":{running},"progress":{progress},"successful":{successful},"response_encoding":{encoding},"job_response":{response},"job_response_str":{response_str},"status_map":{status_map},"info":{info}}}"#
        )
    }

    fn avro(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let [endpoint, word, encoding, response_str] = self.texts.each_ref().map(String::as_bytes);
        put_bytes(&mut out, endpoint);
        put_bytes(&mut out, word);
        out.push(self.running.into());
        avro::put_long(&mut out, self.progress.into());
        out.push(self.successful.into());
        for bytes in [encoding, &self.response, response_str] {
            put_bytes(&mut out, bytes);
        }
        for map in &self.maps {
            avro::put_options(&mut out, map.iter().map(|(key, value)| (&**key, &**value)));
        }
        out
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    avro::put_long(out, bytes.len().try_into().unwrap());
    out.extend_from_slice(bytes);
}

fn binary_wrapper(status: &str, message: &str, data_type: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in [status.as_bytes(), message.as_bytes(), data_type.as_bytes(), data, b""] {
        put_bytes(&mut out, part);
    }
    out
}

/// The same answer in binary, where it is the wrapper in JSON; any other JSON comes
/// as it is, under the media type of binary.
pub(crate) fn in_binary(response: &Response<Bytes>) -> Response<Bytes> {
    let mut wired = response.clone();
    match response.headers().get("content-type") {
        Some(kind) if !kind.to_str().unwrap().contains("json") => return wired,
        Some(_) => {
            drop(wired.headers_mut().insert("content-type", "application/octet-stream".parse().unwrap()));
        }
        None => {}
    }
    if let Some(body) = converted(response.body()) {
        *wired.body_mut() = body.into();
    }
    wired
}

fn converted(body: &[u8]) -> Option<Vec<u8>> {
    let wrapper = Object::parse(body).and_then(Object::unambiguous)?;
    let text = |name| wrapper.text(name);
    let record: Value = serde_json::from_str(&text("data_str")?).ok()?;
    let map = |name: &str| {
        let entries = record[name].as_object()?.iter();
        entries
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect::<Option<Vec<_>>>()
    };
    let text_of = |name: &str| record[name].as_str().map(str::to_owned);
    let sample = Sample {
        texts: [
            text_of("endpoint")?,
            text_of("job_status")?,
            text_of("response_encoding")?,
            text_of("job_response_str")?,
        ],
        running: record["running"].as_bool()?,
        progress: record["progress"].as_i64()?.try_into().ok()?,
        successful: record["successful"].as_bool()?,
        response: from_latin1(&text_of("job_response")?)?.to_vec(),
        maps: [map("status_map")?, map("info")?],
    };
    Some(binary_wrapper(&text("status")?, &text("message")?, &text("data_type")?, &sample.avro()))
}

fn samples() -> impl Strategy<Value = Sample> {
    let word = prop_oneof![4 => "(RUNNING|DONE|ERROR|CANCELLED)", 1 => any::<String>()];
    let encoding = prop_oneof![4 => "(json|binary)", 1 => any::<String>()];
    let key = prop_oneof!["(error_message|job_tag)", any::<String>()];
    let tag = prop_oneof!["t[12]", any::<String>()];
    let map = prop::collection::vec((key, tag), 0..4);
    let texts = (any::<String>(), word, encoding, any::<String>());
    let numbers = (any::<bool>(), prop_oneof![-1..102_i32, any::<i32>()], any::<bool>());
    (texts, numbers, any::<Vec<u8>>(), [map.clone(), map]).prop_map(
        |((endpoint, word, encoding, text), (running, progress, successful), response, maps)| Sample {
            texts: [endpoint, word, encoding, text],
            running,
            progress,
            successful,
            response,
            maps,
        },
    )
}

proptest! {
    #[test]
    fn both_encodings_of_a_record_say_the_same(sample in samples(), tag in "(t[12])?", second: bool) {
        let job = if tag.is_empty() { job() } else { job().with_tag(tag) };
        let cluster = if second { Kinetica::standby } else { Kinetica::new };
        let json = answer(200, "application/json", wrapped(&sample.json()));
        let octets = binary_wrapper("OK", "", "get_job_response", &sample.avro());
        let octets = answer(200, "application/octet-stream", octets);
        let one = observations(&cluster(base_url(), Encoding::Json), std::slice::from_ref(&job), &json);
        let other = observations(&cluster(base_url(), Encoding::Binary), std::slice::from_ref(&job), &octets);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn both_encodings_of_a_refusal_say_the_same(
        status in prop_oneof![Just(200_u16), Just(400), 400_u16..600],
        message in prop_oneof![
            "(Job id 7 not found|System shutting down|Access denied; ok|Insufficient credentials)( \\PC{0,9})?",
            any::<String>(),
        ],
    ) {
        let body = json!({"status":"ERROR","message":message,"data_type":"none","data":"","data_str":""});
        let json = answer(status, "application/json", body.to_string());
        let octets = answer(status, "application/octet-stream", binary_wrapper("ERROR", &message, "none", b""));
        prop_assert_eq!(observations(&adapter(), &[job()], &json), observations(&binary(), &[job()], &octets));
    }

    #[test]
    fn binary_response_cut_or_changed_at_any_byte_is_survived(
        sample in samples(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut body = binary_wrapper("OK", "", "get_job_response", &sample.avro());
        let cut = body[..at.index(body.len())].to_vec();
        let cut = observations(&binary(), &[job()], &answer(200, "application/octet-stream", cut));
        prop_assert_eq!(cut, Err(malformed("not the documented wrapper")));
        let at = at.index(body.len());
        body[at] = byte;
        let _ = observations(&binary(), &[job()], &answer(200, "application/octet-stream", body));
    }
}
