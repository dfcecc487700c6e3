//! Errors of requests that no service sees, and their size.

use http::HeaderMap;
use http_body_util::BodyExt;
use jobwatch::{
    proto::v1::GetJobStatusRequest,
    simulators::{Effect, Fault},
};
use tonic::{
    Code, Status,
    codec::{Codec, CompressionEncoding, EncodeBody},
};
use tonic_prost::ProstCodec;

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

/// A vendor's words reach callers in an error, and an attacker may choose them.
#[tokio::test]
async fn error_with_a_vendors_huge_refusal_stays_within_six_kibibytes() {
    for words in ["\u{1D11E}", "%", "\0", "x y "] {
        let simulator = simulator(Vendor::Immuta).await;
        simulator.inject(Fault::new(Effect::Refuse(words.repeat(100_000 / words.len()))));
        let program = Program::start([Backend::of(&simulator)], "info").await;
        let mut attacker = Attacker::connect(program.address().parse().unwrap(), 2, 1 << 16).await;
        let mut rejected = 0;
        for id in 0..40 {
            let head = attacker.head("GetJobStatus");
            let request = get_request(&job("immuta", &format!("job-{id}")));
            let headers = headers(&mut attacker, head, frame(&request.encode_to_vec())).await;
            let lengths = ["grpc-message", "grpc-status-details-bin"].map(|name| headers[name].len());
            assert!(lengths.iter().sum::<usize>() <= 6 << 10, "{lengths:?} for {words:?}");
            rejected += usize::from(reason(&headers).1 == "BACKEND_REJECTED");
        }
        assert!(rejected > 0, "{words:?}");
        let log = program.log();
        assert!(log.len() < 50_000, "{} bytes of log", log.len());
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

/// A call's message of 32 MiB of zeros, as it is compressed and framed.
pub(super) async fn bomb(encoding: CompressionEncoding) -> Bytes {
    let bomb = GetJobStatusRequest { job: Some(job("immuta", &"\0".repeat(32 << 20))), ..Default::default() };
    let encoder = ProstCodec::<GetJobStatusRequest, GetJobStatusRequest>::default().encoder();
    let body = EncodeBody::new_client(encoder, tokio_stream::iter([Ok(bomb)]), Some(encoding), None);
    body.collect().await.unwrap().to_bytes()
}

/// Calls with a compressed message.
pub(super) async fn send_bombs(
    address: SocketAddr,
    (encoding, bomb): (&'static str, Bytes),
    times: usize,
) -> Vec<(Code, String)> {
    let mut attacker = Attacker::connect(address, 2, 1 << 16).await;
    let mut errors = Vec::new();
    for _ in 0..times {
        let head = attacker.head("GetJobStatus").header("grpc-encoding", encoding);
        errors.push(reason(&headers(&mut attacker, head, bomb.clone()).await));
    }
    errors
}

#[tokio::test]
async fn message_that_grows_beyond_its_limit_is_refused() {
    let mut scene = Scene::start("compressed bomb").await;
    let address = scene.address();
    for (name, encoding) in [("gzip", CompressionEncoding::Gzip), ("zstd", CompressionEncoding::Zstd)] {
        let bomb = bomb(encoding).await;
        assert!(bomb.len() <= 64 << 10, "{} bytes are refused as they are", bomb.len());
        for error in scene.under(send_bombs(address, (name, bomb), 50 * scale())).await {
            assert_eq!(error, (Code::ResourceExhausted, "REQUEST_TOO_LONG".to_owned()));
        }
    }
    scene.finish().await;
}
