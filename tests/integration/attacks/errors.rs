//! Errors of requests that no service sees, and their size.

use http::HeaderMap;
use jobwatch::proto::v1::GetJobStatusRequest;
use tonic::{Code, Status, codec::CompressionEncoding};

use super::*;

/// Headers that gRPC clients accept from any server.
const ACCEPTED: usize = 8 << 10;

async fn gateway() -> (Simulator, Gateway) {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    (simulator, gateway)
}

/// The headers of a call's response that is only headers.
async fn headers(attacker: &mut Attacker, head: http::request::Builder, message: Bytes) -> HeaderMap {
    let mut client = attacker.client.clone().ready().await.unwrap();
    let (response, mut stream) = client.send_request(head.body(()).unwrap(), false).unwrap();
    stream.send_data(message, true).unwrap();
    guard(response).await.unwrap().headers().clone()
}

fn reason(headers: &HeaderMap) -> (Code, String) {
    code_and_reason(&Status::from_header_map(headers).unwrap())
}

#[tokio::test]
async fn error_of_a_request_that_no_service_sees_has_an_error_info() {
    let (_simulator, gateway) = gateway().await;
    let mut attacker = Attacker::connect(gateway.address, 2, 1 << 16).await;
    let head = attacker.head("NoSuchMethod");
    let unknown = headers(&mut attacker, head, frame(&[])).await;
    assert_eq!(reason(&unknown), (Code::Unimplemented, "UNIMPLEMENTED".to_owned()));
    let other = http::Request::post(format!("http://{}/no.such.Service/Get", gateway.address));
    let other = other.header("content-type", "application/grpc").header("te", "trailers");
    let unknown = headers(&mut attacker, other, frame(&[])).await;
    assert_eq!(reason(&unknown), (Code::Unimplemented, "UNIMPLEMENTED".to_owned()));
    for junk in [&[0xff; 40][..], &[0x0a, 0x7f], &[0x0a, 2, 0xff, 0xff]] {
        let head = attacker.head("GetJobStatus");
        let refused = headers(&mut attacker, head, frame(junk)).await;
        assert_eq!(reason(&refused).0, Code::Internal, "{refused:?}");
    }
    // The message is cut off.
    let head = attacker.head("GetJobStatus");
    let refused = headers(&mut attacker, head, Bytes::from_static(&[0, 0, 0, 0, 9, 1])).await;
    assert_eq!(reason(&refused).0, Code::Internal);
    let head = attacker.head("GetJobStatus").header("grpc-encoding", "snappy");
    let refused = headers(&mut attacker, head, frame(&[])).await;
    assert_eq!(reason(&refused), (Code::Unimplemented, "UNIMPLEMENTED".to_owned()));
}

#[tokio::test]
async fn too_much_metadata_ends_only_its_call() {
    let (simulator, gateway) = gateway().await;
    let client = gateway.client();
    let started = simulator.start_job(Plan::fixed("active"));
    let job = job_at(&simulator, &started);
    let mut neighbour = Watch::of(&client, &job).await;
    neighbour.status().await;
    for kilobytes in [33, 48, 60] {
        let mut request = tonic::Request::new(get_request(&job));
        for n in 0..kilobytes {
            let key = tonic::metadata::MetadataKey::from_bytes(format!("x-{n}").as_bytes()).unwrap();
            request.metadata_mut().insert(key, "y".repeat(1000).parse().unwrap());
        }
        guard(client.clone().get_job_status(request)).await.unwrap_err();
    }
    get(&client, &job).await.unwrap();
    simulator.finish(&started.id);
    neighbour.terminal_status().await;
}

#[tokio::test]
async fn error_with_long_texts_fits_into_the_headers_that_clients_accept() {
    let (_simulator, gateway) = gateway().await;
    let mut attacker = Attacker::connect(gateway.address, 2, 1 << 16).await;
    for id in ["x".repeat(512), "é".repeat(256), "𝄞".repeat(128), "%".repeat(512), "𝄞".repeat(512)] {
        let head = attacker.head("GetJobStatus");
        let request = get_request(&job("no-such-backend", &id));
        let headers = headers(&mut attacker, head, frame(&request.encode_to_vec())).await;
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(bytes <= ACCEPTED, "{bytes} bytes for {id:.10}");
        assert_eq!(reason(&headers), (Code::NotFound, "UNKNOWN_BACKEND".to_owned()));
    }
}

#[tokio::test]
async fn caller_may_compress_requests_and_receives_compressed_responses() {
    let (simulator, gateway) = gateway().await;
    let client = gateway.client();
    let large = ended_job(&simulator, &client, &format!("[{:?}]", "x".repeat(100_000))).await;
    let small = ended_job(&simulator, &client, "[]").await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let client = gateway.client().send_compressed(encoding).accept_compressed(encoding);
        let mut request = full(&large);
        request.max_age = Some(proto_ms(3_600_000));
        let response = guard(client.clone().get_job_status(request)).await.unwrap();
        let used = response.metadata().get("grpc-encoding").unwrap().to_str().unwrap().to_owned();
        assert_eq!(used, format!("{encoding:?}").to_lowercase());
        assert_eq!(response.into_inner().status.unwrap().result.unwrap().data.len(), 100_004);
        let results = batch(&client, batch_request(vec![small.clone(); 1000])).await.unwrap();
        assert!(results.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn message_that_grows_beyond_its_limit_is_refused() {
    let mut scene = Scene::start("compressed bomb").await;
    let address = scene.address();
    // 64 MiB of zeros.
    let bomb = GetJobStatusRequest { job: Some(job("immuta", &"\0".repeat(64 << 20))), ..Default::default() };
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let client = client_from(address, 2).send_compressed(encoding);
        let bomb = bomb.clone();
        let attack = async {
            let mut errors = Vec::new();
            for _ in 0..5 * scale() {
                errors.push(guard(client.clone().get_job_status(bomb.clone())).await.unwrap_err());
            }
            errors
        };
        for error in scene.under(attack).await {
            assert_eq!(code_and_reason(&error), (Code::ResourceExhausted, "REQUEST_TOO_LONG".to_owned()));
        }
    }
    scene.finish().await;
}
