//! An open watch, and what it received.

use super::*;

pub(crate) fn watch_request(job: &JobRef) -> WatchJobRequest {
    WatchJobRequest { job: Some(job.clone()), ..Default::default() }
}

fn with_cause(interruption: Interruption) -> (Interruption, DecodedError) {
    let cause = from_message(interruption.cause.as_ref().expect("an interruption has a cause"));
    (interruption, decode_error(&cause))
}

/// An open watch and the newest token that it sent.
#[derive(Debug)]
pub(crate) struct Watch {
    stream: Streaming<WatchJobResponse>,
    pub(crate) token: String,
}

impl Watch {
    pub(crate) async fn open(
        client: &Client,
        request: impl tonic::IntoRequest<WatchJobRequest>,
    ) -> Result<Self, Status> {
        let stream = guard(client.clone().watch_job(request)).await?.into_inner();
        Ok(Self { stream, token: String::new() })
    }

    pub(crate) async fn of(client: &Client, job: &JobRef) -> Self {
        Self::open(client, watch_request(job)).await.unwrap()
    }

    /// The next event; `None` after OK.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Status> {
        let Some(response) = guard(self.stream.message()).await? else { return Ok(None) };
        self.token = response.resume_token;
        Ok(Some(response.event.expect("a response has an event")))
    }

    /// The next event that is no heartbeat; `None` after OK. On a busy machine a
    /// heartbeat is due before any other event.
    async fn next_but_heartbeats(&mut self) -> Result<Option<Event>, Status> {
        loop {
            match self.next().await {
                Ok(Some(Event::Heartbeat(_))) => {}
                other => return other,
            }
        }
    }

    /// The next event but for heartbeats, which has to be a status.
    pub(crate) async fn status(&mut self) -> JobStatus {
        match self.next_but_heartbeats().await {
            Ok(Some(Event::Status(status))) => status,
            other => panic!("not a status: {other:?}"),
        }
    }

    /// The next event but for heartbeats, which has to be an interruption; with its
    /// cause.
    pub(crate) async fn interruption(&mut self) -> (Interruption, DecodedError) {
        match self.next_but_heartbeats().await {
            Ok(Some(Event::Interruption(interruption))) => with_cause(interruption),
            other => panic!("not an interruption: {other:?}"),
        }
    }

    /// The next status; heartbeats and interruptions may come before it.
    pub(crate) async fn next_status(&mut self) -> JobStatus {
        loop {
            match self.next().await {
                Ok(Some(Event::Status(status))) => return status,
                Ok(Some(Event::Heartbeat(_) | Event::Interruption(_))) => {}
                other => panic!("no more statuses: {other:?}"),
            }
        }
    }

    /// The terminal status, after which the watch has to end with OK. Anything but an
    /// error may come before it.
    pub(crate) async fn terminal_status(&mut self) -> JobStatus {
        loop {
            let status = self.next_status().await;
            if status.terminal {
                self.end().await.unwrap();
                return status;
            }
        }
    }

    /// The end of the watch, before which only heartbeats may come.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        let event = self.next_but_heartbeats().await?;
        assert!(event.is_none(), "it goes on: {event:?}");
        Ok(())
    }

    /// The remaining statuses, and the end.
    pub(crate) async fn rest(&mut self) -> (Vec<JobStatus>, Result<(), Status>) {
        let mut statuses = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(Event::Status(status))) => statuses.push(status),
                Ok(Some(_)) => {}
                Ok(None) => return (statuses, Ok(())),
                Err(error) => return (statuses, Err(error)),
            }
        }
    }
}
