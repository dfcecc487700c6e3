//! Answers whose HTTP status or type decides.

use super::*;

#[test]
fn an_answer_of_another_type_is_malformed() {
    for row in rows() {
        for content_type in ["text/csv", "application/xml", "application/vnd.x+xml", "image/png"] {
            row.assert_malformed(&answer(200, content_type, row.answer));
        }
    }
}

#[test]
fn json_of_a_lenient_type_is_read() {
    for row in rows() {
        let types: &[&str] = if row.media_type == "application/json" {
            &[
                "text/json",
                "application/problem+json",
                "application/vnd.vendor.v2",
                "text/plain",
                "TEXT/PLAIN; Charset=UTF-8",
            ]
        } else {
            &["binary/octet-stream", "avro/binary", "Application/Octet-Stream"]
        };
        for content_type in types {
            let states = row.states(&answer(200, content_type, row.answer));
            assert!(states.iter().all(Option::is_some), "{}: {content_type}", row.vendor);
        }
    }
}

#[test]
fn a_page_for_people_is_not_understood_or_refused() {
    for row in rows() {
        for status in [200, 400, 404, 405, 410, 422] {
            let fault = row.fault(&html(status));
            assert!(
                match fault {
                    FaultKind::Malformed { why } => status == 200 && why.contains("HTML"),
                    FaultKind::Rejected { .. } => status != 200,
                    _ => false,
                },
                "{}: HTTP {status} gave {fault:?}",
                row.vendor
            );
        }
        assert_eq!(row.fault(&html(403)), FaultKind::Forbidden, "{}", row.vendor);
        row.assert_malformed(&answer(200, "", "<!DOCTYPE html>"));
    }
}

#[test]
fn a_redirect_is_never_an_answer() {
    for row in rows() {
        for status in [301, 302, 303, 307, 308] {
            for body in [json(status, row.answer), html(status), answer(status, "", "")] {
                let fault = row.fault(&body);
                assert!(matches!(fault, FaultKind::Rejected { .. }), "{}: {fault:?}", row.vendor);
                let elsewhere =
                    row.fault(&with(body.clone(), "location", "https://elsewhere.example/login?a=b"));
                let message = format!("a redirect (HTTP {status}) to https://elsewhere.example/login");
                assert_eq!(elsewhere, FaultKind::Rejected { message }, "{}", row.vendor);
                let login = row.fault(&with(body, "location", "/demo/login?a=b"));
                let logged_out = login == FaultKind::CredentialsRejected;
                assert_eq!(logged_out, row.has_a_login_page, "{}: {login:?}", row.vendor);
            }
        }
        let expired = row.fault(&json(419, "{}"));
        assert_eq!(expired == FaultKind::CredentialsRejected, row.has_a_login_page, "{}", row.vendor);
    }
}

#[test]
fn rejected_credentials_are_the_gateways_matter() {
    for row in rows() {
        for body in ["", "{}", r#"{"message": "Unauthenticated."}"#, row.answer] {
            assert_eq!(row.fault(&json(401, body)), FaultKind::CredentialsRejected, "{}", row.vendor);
            let forbidden = row.fault(&json(403, body));
            assert!(
                matches!(forbidden, FaultKind::Forbidden | FaultKind::CredentialsRejected),
                "{}: {forbidden:?}",
                row.vendor
            );
        }
        assert_eq!(row.fault(&html(401)), FaultKind::CredentialsRejected, "{}", row.vendor);
    }
}

#[test]
fn a_404_without_a_word_about_the_job_is_the_wrong_endpoint() {
    for row in rows().into_iter().filter(|row| !row.bare_404_is_missing) {
        for body in ["{}", r#"{"statusCode": 404, "error": "Not Found", "message": "Not Found"}"#] {
            let one = row.read_for(&row.polled[..1], &json(404, body)).unwrap_err();
            assert!(matches!(one.kind, FaultKind::Rejected { .. }), "{}: {one:?}", row.vendor);
            let fault = row.fault(&json(404, body));
            assert!(matches!(fault, FaultKind::Rejected { .. }), "{}: {fault:?}", row.vendor);
        }
    }
}

#[test]
fn throttling_has_the_wait_that_the_vendor_asks_for() {
    for row in rows() {
        for response in [json(429, ""), json(429, row.answer), html(429)] {
            let fault = row.read(&response).unwrap_err();
            assert_eq!((fault.kind, fault.retry_after), (FaultKind::Throttled, None), "{}", row.vendor);
            let fault = row.read(&retry_after(response, "7")).unwrap_err();
            let seven = Some(Duration::from_secs(7));
            assert_eq!((fault.kind, fault.retry_after), (FaultKind::Throttled, seven), "{}", row.vendor);
        }
    }
}

#[test]
fn transient_status_is_an_outage_whatever_its_body() {
    for row in rows() {
        for status in [408, 421, 425, 460, 499, 500, 502, 503, 504, 511, 520, 527, 530, 599, 600, 999] {
            for body in ["", "{}", r#"{"message": "Job not found"}"#, row.answer] {
                for response in [json(status, body), html(status), answer(status, "", body)] {
                    for wait in [None, Some(20)] {
                        let response = match wait {
                            Some(_) => retry_after(response.clone(), "20"),
                            None => response.clone(),
                        };
                        let fault = row.read(&response).unwrap_err();
                        assert!(
                            matches!(fault.kind, FaultKind::Unavailable { .. }),
                            "{}: {fault:?}",
                            row.vendor
                        );
                        assert_eq!(fault.retry_after, wait.map(Duration::from_secs), "{}", row.vendor);
                    }
                }
            }
        }
    }
}

#[test]
fn any_failed_response_may_ask_for_a_wait() {
    let seven = Some(Duration::from_secs(7));
    for row in rows() {
        for status in [200, 202, 204, 302, 400, 401, 403, 404, 408, 409, 422, 425, 429, 503] {
            for body in [json(status, "[]"), html(status)] {
                let fault = row.read(&retry_after(body, "7")).unwrap_err();
                assert_eq!(fault.retry_after, seven, "{}: HTTP {status} gave {fault:?}", row.vendor);
                match status {
                    403 => assert_eq!(fault.kind, FaultKind::Throttled, "{}", row.vendor),
                    401 => assert_eq!(fault.kind, FaultKind::CredentialsRejected, "{}", row.vendor),
                    202 | 408 | 425 | 503 => {
                        assert!(
                            matches!(fault.kind, FaultKind::Unavailable { .. }),
                            "{}: {fault:?}",
                            row.vendor
                        );
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn accepted_request_does_not_say_that_a_job_is_missing() {
    for row in rows() {
        let fault = row.fault(&json(202, "{}"));
        assert!(matches!(fault, FaultKind::Unavailable { .. }), "{}: {fault:?}", row.vendor);
        let states = row.states(&json(202, row.answer));
        assert!(states.iter().all(Option::is_some), "{}: an answer is one all the same", row.vendor);
    }
}

#[test]
fn proxy_that_rejects_its_credentials_is_not_the_vendor() {
    for row in rows() {
        let fault = row.fault(&html(407));
        assert!(matches!(&fault, FaultKind::Unreachable { why } if why.contains("proxy")), "{fault:?}");
        row.assert_malformed(&json(304, ""));
    }
}

#[test]
fn a_token_exchange_tells_a_refusal_from_an_outage() {
    for row in rows() {
        let Some(exchange) = row.adapter.token_exchange() else { continue };
        let request = exchange.request(&SecretString::from("s3cret")).unwrap();
        assert!(request.uri().to_string().starts_with("https://vendor.example/"), "{}", row.vendor);

        let fault = |response: Response<Bytes>| exchange.interpret(&response).unwrap_err().kind;
        assert_eq!(fault(json(401, "{}")), FaultKind::CredentialsRejected, "{}", row.vendor);
        assert_eq!(fault(html(401)), FaultKind::CredentialsRejected, "{}", row.vendor);
        // What is forbidden is the secret itself.
        assert_eq!(fault(json(403, "{}")), FaultKind::CredentialsRejected, "{}", row.vendor);
        assert!(matches!(fault(json(500, "{}")), FaultKind::Unavailable { .. }), "{}", row.vendor);
        assert!(matches!(fault(html(503)), FaultKind::Unavailable { .. }), "{}", row.vendor);
        assert!(matches!(fault(json(429, "{}")), FaultKind::Throttled), "{}", row.vendor);
        for status in [408, 421, 425, 460, 499] {
            let fault = fault(json(status, r#"{"error":"invalid_client"}"#));
            assert!(matches!(fault, FaultKind::Unavailable { .. }), "{}: {fault:?}", row.vendor);
        }
        // What a firewall or a captive portal says is not about the secret.
        for status in [200, 400, 403, 422] {
            assert_ne!(fault(html(status)), FaultKind::CredentialsRejected, "{}: {status}", row.vendor);
        }
        assert_eq!(fault(retry_after(json(403, "{}"), "7")), FaultKind::Throttled, "{}", row.vendor);
        for status in [200, 204, 302, 404] {
            for body in ["", "{}", "null", "[]", "\"x\"", "1", r#"{"token": 1, "access_token": []}"#] {
                fault(json(status, body));
            }
        }
        // What can't be a header is no token, whichever of the names it has.
        for bad in ["", "a b", "a\\nb", "ä"] {
            fault(json(200, format!(r#"{{"token": "{bad}", "access_token": "{bad}"}}"#)));
        }
    }
}
