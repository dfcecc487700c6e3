//! How many connections are accepted, and what becomes of a silent one.

use jobwatch::simulators::{Plan, Vendor};
use tokio::{
    net::TcpStream,
    time::{Duration, timeout},
};

use crate::harness::*;

#[tokio::test]
async fn a_connection_that_says_nothing_keeps_others_out_for_ten_seconds_at_most() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start_with("[limits]\nconnections = 1\n", [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("pending")));
    let _silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut client = gateway.client();
    let mut asked = Box::pin(client.get_job_status(get_request(&job)));
    let early = timeout(Duration::from_secs(1), &mut asked).await;
    assert!(early.is_err(), "the only place is taken");
    let answer = timeout(Duration::from_secs(20), asked).await.expect("the silent one is let go");
    assert_eq!(answer.unwrap().into_inner().status.unwrap().vendor_state, "pending");
}
