"""The client for threads."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import grpc
from jobwatch.v1.job_pb2 import JOB_STATUS_VIEW_UNSPECIFIED, JobStatus, JobStatusView
from jobwatch.v1.job_status_service_pb2 import WatchJobsRequest, WatchJobsResponse
from jobwatch.v1.job_status_service_pb2_grpc import JobStatusServiceStub

from ._errors import GatewayError, of_call
from ._session import (
    ENDED_EARLY,
    RESULT,
    SILENCE,
    SILENT,
    Download,
    Job,
    OnProblem,
    Options,
    Session,
    Update,
    Waiting,
    job_ref,
    job_refs,
)


class JobClient:
    """Waits for jobs, and follows them, over a channel that belongs to the caller.

    `metadata` is sent with each call, such as ("authorization", "Bearer TOKEN").
    """

    def __init__(self, channel: grpc.Channel, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._stub: Any = JobStatusServiceStub(channel)
        self._metadata = tuple(metadata)

    def wait(
        self,
        job: Job,
        *,
        timeout: float | None = None,
        view: JobStatusView = JOB_STATUS_VIEW_UNSPECIFIED,
        poll_interval: float | None = None,
        on_problem: OnProblem | None = None,
    ) -> JobStatus:
        """Returns the terminal status of a job.

        `on_problem` is called with each problem that does not end the wait: the gateway can't be
        reached, or can't poll the vendor. Without it, the logger "jobwatch_client" has a warning.

        Raises NotEnded after `timeout` seconds, and GatewayError for a final error. That includes
        what keeps the gateway from polling the vendor, unless it may pass by itself.
        """
        waiting = Waiting(on_problem)
        updates = self.follow(
            job_ref(job), timeout=timeout, view=view, poll_interval=poll_interval, state_changes_only=True
        )
        with closing(updates):
            for update in updates:
                status = waiting.take(update)
                if status is not None:
                    return status
        raise AssertionError("a watch ends with a status or an error")

    def follow(
        self,
        jobs: Job | Iterable[Job],
        *,
        timeout: float | None = None,
        view: JobStatusView = JOB_STATUS_VIEW_UNSPECIFIED,
        poll_interval: float | None = None,
        state_changes_only: bool = False,
    ) -> Generator[Update, None, None]:
        """Yields what happens to the jobs, until all have ended. Closing the iterator ends the call."""
        session = Session(job_refs(jobs), Options(view, poll_interval, state_changes_only))
        return self._follow(session, timeout)

    def _follow(self, session: Session, timeout: float | None) -> Generator[Update, None, None]:
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not session.done:
            error = yield from self._call(session, end)
            wait = 0.0
            if error:
                updates, wait = session.lost(error)
                yield from updates
            if not session.done:
                time.sleep(max(0.0, min(wait, end - time.monotonic())))
            if timeout is not None and time.monotonic() >= end:
                yield from session.timed_out(timeout)

    def _call(self, session: Session, end: float) -> Generator[Update, None, GatewayError | None]:
        """One call. Returns the error that ended it, or None at the end or when all is done."""
        outgoing: queue.SimpleQueue[WatchJobsRequest | None] = queue.SimpleQueue()
        incoming: queue.Queue[WatchJobsResponse | GatewayError] = queue.Queue(64)
        closed = threading.Event()
        for request in session.begin():
            outgoing.put(request)
        call = self._stub.WatchJobs(iter(outgoing.get, None), metadata=self._metadata)
        arguments = (call, incoming, closed)
        threading.Thread(target=_read, args=arguments, name="jobwatch-follow", daemon=True).start()
        dead_at = time.monotonic() + SILENCE
        try:
            while not session.done:
                now = time.monotonic()
                if now >= end:
                    return None
                if now >= dead_at:
                    return SILENT
                for request in session.due(now):
                    outgoing.put(request)
                wake = min(end, dead_at, session.due_at() or math.inf)
                try:
                    response = incoming.get(timeout=max(0.0, wake - now))
                except queue.Empty:
                    continue
                if not isinstance(response, WatchJobsResponse):
                    return response
                now = time.monotonic()
                dead_at = now + SILENCE
                yield from session.receive(response, now)
                if session.lost_with:
                    return session.lost_with
            return None
        finally:
            # Waits for nothing: an iterator may be closed when the program ends.
            closed.set()
            outgoing.put(None)
            call.cancel()

    def download(self, job: Job, artifact_id: str = RESULT) -> Iterator[bytes]:
        """Yields the bytes of a file, of the result, or of "jobwatch:vendor_payload". Continues where
        it was interrupted."""
        download = Download(job, artifact_id)
        while True:
            call = self._stub.DownloadArtifact(download.request, metadata=self._metadata)
            try:
                for response in call:
                    if data := download.receive(response):
                        yield data
                return
            except grpc.RpcError as error:
                wait = download.interrupted(of_call(error))
            finally:
                call.cancel()
            time.sleep(wait)

    def result(self, status: JobStatus) -> bytes:
        """The result of a job, downloaded if it is too large for a status."""
        if status.result.omitted:
            return b"".join(self.download(status.job))
        return status.result.data


def _read(call: Any, incoming: queue.Queue[WatchJobsResponse | GatewayError], closed: threading.Event) -> None:
    def put(item: WatchJobsResponse | GatewayError) -> None:
        while not closed.is_set():
            try:
                return incoming.put(item, timeout=1)
            except queue.Full:
                pass

    try:
        for response in call:
            put(response)
        put(ENDED_EARLY)
    except grpc.RpcError as error:
        put(of_call(error))


__all__ = ["JobClient"]
