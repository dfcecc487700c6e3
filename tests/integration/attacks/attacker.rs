//! Connections that an attacker controls.

use h2::{SendStream, client::ResponseFuture};
use tokio::io::{AsyncRead, AsyncWrite};

use super::*;

/// A connection that an attacker controls.
pub(crate) struct Attacker {
    pub(super) client: h2::client::SendRequest<Bytes>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Attacker {
    /// `window`: bytes that the server may send on a stream.
    pub(crate) async fn connect(address: SocketAddr, last: u8, window: u32) -> Self {
        Self::over(connect_from(address, last).await, address, window).await
    }

    /// The same over a connection that is open.
    pub(super) async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        address: SocketAddr,
        window: u32,
    ) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_max_send_streams(10_000);
        let (client, connection) = builder.handshake(stream).await.unwrap();
        Self { client, address, task: tokio::spawn(connection) }
    }

    pub(super) fn head(&self, method: &str) -> http::request::Builder {
        let url = format!("http://{}/jobwatch.v1.JobStatusService/{method}", self.address);
        http::Request::post(url).header("content-type", "application/grpc").header("te", "trailers")
    }

    /// Begins a call.
    pub(super) async fn begin(
        &mut self,
        method: &str,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut client = self.client.clone().ready().await?;
        client.send_request(self.head(method).body(()).unwrap(), false)
    }

    /// Makes a call and reads nothing of the response.
    pub(crate) async fn call(&mut self, method: &str, message: Bytes) -> Result<ResponseFuture, h2::Error> {
        let (response, mut stream) = self.begin(method).await?;
        stream.send_data(message, true)?;
        Ok(response)
    }

    /// The same with a token.
    pub(crate) async fn call_as(
        &mut self,
        token: &str,
        method: &str,
        message: Bytes,
    ) -> Result<ResponseFuture, h2::Error> {
        let head = self.head(method).header("authorization", format!("Bearer {token}"));
        let mut client = self.client.clone().ready().await?;
        let (response, mut stream) = client.send_request(head.body(()).unwrap(), false)?;
        stream.send_data(message, true)?;
        Ok(response)
    }

    /// Makes a call and reads its response to the end. Returns the number of its bytes.
    pub(super) async fn read(&mut self, method: &str, message: Bytes) -> Result<usize, h2::Error> {
        let mut body = self.call(method, message).await?.await?.into_body();
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            bytes += data.len();
        }
        Ok(bytes)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.task.abort();
    }
}
