//! Answers whose HTTP status or type decides.

use super::*;

#[test]
fn an_answer_of_another_type_is_malformed() {
    for row in rows() {
        for content_type in ["text/plain", "application/octet-stream", "application/xml", "image/png"] {
            row.assert_malformed(&answer(200, content_type, row.answer));
        }
    }
}

#[test]
fn a_page_for_people_is_the_login_page_or_not_understood() {
    for row in rows() {
        for status in [200, 400, 404, 405, 410, 422] {
            let fault = row.fault(&html(status));
            assert!(
                match fault {
                    FaultKind::CredentialsRejected => row.has_a_login_page,
                    FaultKind::Malformed { .. } => !row.has_a_login_page,
                    FaultKind::Rejected { .. } => !row.has_a_login_page && status != 200,
                    _ => false,
                },
                "{}: HTTP {status} gave {fault:?}",
                row.vendor
            );
        }
    }
}

#[test]
fn a_redirect_is_never_an_answer() {
    for row in rows() {
        for status in [301, 302, 303, 307, 308] {
            for body in [json(status, row.answer), html(status), answer(status, "", "")] {
                let fault = row.fault(&body);
                let refused = matches!(fault, FaultKind::Rejected { .. });
                let logged_out = fault == FaultKind::CredentialsRejected;
                assert!(if row.has_a_login_page { logged_out } else { refused }, "{}: {fault:?}", row.vendor);
            }
        }
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
    for row in rows() {
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
        let wait = |retry_after| FaultKind::Throttled { retry_after };
        for response in [json(429, ""), json(429, row.answer), html(429)] {
            assert_eq!(row.fault(&response), wait(None), "{}", row.vendor);
            let seven = Some(Duration::from_secs(7));
            assert_eq!(row.fault(&retry_after(response, "7")), wait(seven), "{}", row.vendor);
        }
    }
}

#[test]
fn any_5xx_is_an_outage_whatever_its_body() {
    for row in rows() {
        for status in [500, 502, 503, 504, 520, 599, 600, 999] {
            for body in ["", "{}", r#"{"message": "Job not found"}"#, row.answer] {
                for response in [json(status, body), html(status), answer(status, "", body)] {
                    for wait in [None, Some(20)] {
                        let response = match wait {
                            Some(_) => retry_after(response.clone(), "20"),
                            None => response.clone(),
                        };
                        let fault = row.fault(&response);
                        let FaultKind::Unavailable { retry_after, .. } = fault else {
                            panic!("{}: {fault:?}", row.vendor);
                        };
                        assert_eq!(retry_after, wait.map(Duration::from_secs), "{}", row.vendor);
                    }
                }
            }
        }
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
        assert!(matches!(fault(json(429, "{}")), FaultKind::Throttled { .. }), "{}", row.vendor);
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
