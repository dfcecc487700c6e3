//! Reflection and health.

use std::collections::BTreeSet;

use futures_util::stream;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::*;

const SERVICE: &str = "jobwatch.v1.JobStatusService";
const OPERATIONS: &str = "google.longrunning.Operations";

async fn gateway() -> Gateway {
    Gateway::start([Backend::dead(jobwatch::simulators::Vendor::Immuta).await]).await
}

/// Requests the services and these symbols from one version of reflection.
macro_rules! reflect {
    ($version:ident, $channel:expr, $symbols:expr) => {{
        use $version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request =
            |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let mut requests = vec![request(MessageRequest::ListServices(String::new()))];
        requests.extend(
            $symbols.iter().map(|name| request(MessageRequest::FileContainingSymbol((*name).to_owned()))),
        );
        let mut client = ServerReflectionClient::new($channel);
        let response = guard(client.server_reflection_info(stream::iter(requests))).await.unwrap();
        let mut responses = response.into_inner();
        let mut services = BTreeSet::new();
        let mut files = Vec::new();
        while let Some(response) = guard(responses.message()).await.unwrap() {
            match response.message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    services.extend(list.service.into_iter().map(|service| service.name));
                }
                MessageResponse::FileDescriptorResponse(file) => files.push(file.file_descriptor_proto),
                other => panic!("{other:?}"),
            }
        }
        (services, files)
    }};
}

#[tokio::test]
async fn both_reflections_list_the_services_and_describe_what_clients_decode() {
    let gateway = gateway().await;
    let symbols = [
        SERVICE,
        "jobwatch.v1.JobStatus",
        OPERATIONS,
        "grpc.health.v1.Health",
        "google.rpc.ErrorInfo",
        "google.rpc.RetryInfo",
        "google.rpc.BadRequest",
        "google.rpc.ResourceInfo",
        "google.rpc.QuotaFailure",
    ];
    for (services, files) in
        [reflect!(v1, gateway.channel(), symbols), reflect!(v1alpha, gateway.channel(), symbols)]
    {
        for name in [SERVICE, OPERATIONS, "grpc.health.v1.Health"] {
            assert!(services.contains(name), "{services:?}");
        }
        assert_eq!(files.len(), symbols.len());
        assert!(files.iter().all(|file| !file.is_empty()));
    }
}

#[tokio::test]
async fn health_is_serving_despite_vendor_outages() {
    let gateway = gateway().await;
    let mut health = HealthClient::new(gateway.channel());
    for service in ["", SERVICE, OPERATIONS] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response = guard(health.check(request)).await.unwrap().into_inner();
        assert_eq!(response.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn health_watch_receives_not_serving_at_shutdown() {
    let gateway = gateway().await;
    let mut health = HealthClient::new(gateway.channel());
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut stream = guard(health.watch(request)).await.unwrap().into_inner();
    let first = guard(stream.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    gateway.shutdown.cancel();
    let next = guard(stream.message()).await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
}
