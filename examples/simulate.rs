//! Runs one simulated vendor until Ctrl-C: `cargo run --example simulate -- kinetica [ADDRESS]`.
//!
//! Prints its URL first, for scripts.

use std::{error::Error, net::SocketAddr};

use jobwatch::simulators::{Simulator, Vendor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let vendor: Vendor = args.next().ok_or("which vendor?")?.parse()?;
    let addr: SocketAddr = args.next().as_deref().unwrap_or("127.0.0.1:0").parse()?;
    let simulator = Simulator::start_at(vendor, addr).await?;
    println!("{}", simulator.base_url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
