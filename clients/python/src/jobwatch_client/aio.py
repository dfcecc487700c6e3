"""The client for asyncio. Its channel comes from `grpc.aio`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from jobwatch.v1.job_pb2 import JOB_STATUS_VIEW_UNSPECIFIED, JobStatus, JobStatusView
from jobwatch.v1.job_status_service_pb2 import WatchJobsRequest
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
    """As `jobwatch_client.JobClient`."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._stub: Any = JobStatusServiceStub(channel)
        self._metadata = tuple(metadata)

    async def wait(
        self,
        job: Job,
        *,
        timeout: float | None = None,
        view: JobStatusView = JOB_STATUS_VIEW_UNSPECIFIED,
        poll_interval: float | None = None,
        on_problem: OnProblem | None = None,
    ) -> JobStatus:
        """As `jobwatch_client.JobClient.wait`."""
        waiting = Waiting(on_problem)
        updates = self.follow(
            job_ref(job), timeout=timeout, view=view, poll_interval=poll_interval, state_changes_only=True
        )
        async with aclosing(updates):
            async for update in updates:
                status = waiting.take(update)
                if status is not None:
                    return status
        raise AssertionError("a watch ends with a status or an error")

    async def follow(
        self,
        jobs: Job | Iterable[Job],
        *,
        timeout: float | None = None,
        view: JobStatusView = JOB_STATUS_VIEW_UNSPECIFIED,
        poll_interval: float | None = None,
        state_changes_only: bool = False,
    ) -> AsyncGenerator[Update, None]:
        """As `jobwatch_client.JobClient.follow`."""
        session = Session(job_refs(jobs), Options(view, poll_interval, state_changes_only))
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not session.done:
            error: GatewayError | None = None
            call = _Call(self._stub.WatchJobs(metadata=self._metadata), session)
            try:
                while not (error or session.done) and time.monotonic() < end:
                    updates = await call.next(end)
                    if isinstance(updates, GatewayError):
                        error = updates
                        break
                    for update in updates:
                        yield update
                    error = session.lost_with
            finally:
                await call.close()
            wait = 0.0
            if error:
                lost, wait = session.lost(error)
                for update in lost:
                    yield update
            if not session.done:
                await asyncio.sleep(max(0.0, min(wait, end - time.monotonic())))
            if timeout is not None and time.monotonic() >= end:
                for update in session.timed_out(timeout):
                    yield update

    async def download(self, job: Job, artifact_id: str = RESULT) -> AsyncGenerator[bytes, None]:
        """As `jobwatch_client.JobClient.download`."""
        download = Download(job, artifact_id)
        while True:
            call = self._stub.DownloadArtifact(download.request, metadata=self._metadata)
            try:
                async for response in call:
                    if data := download.receive(response):
                        yield data
                return
            except grpc.RpcError as error:
                wait = download.interrupted(of_call(error))
            finally:
                call.cancel()
            await asyncio.sleep(wait)

    async def result(self, status: JobStatus) -> bytes:
        """As `jobwatch_client.JobClient.result`."""
        if status.result.omitted:
            return b"".join([data async for data in self.download(status.job)])
        return status.result.data


class _Call:
    """One WatchJobs call."""

    def __init__(self, call: Any, session: Session) -> None:
        self._call, self._session = call, session
        self._outgoing: asyncio.Queue[WatchJobsRequest] = asyncio.Queue()
        for request in session.begin():
            self._outgoing.put_nowait(request)
        self._writing = asyncio.ensure_future(self._write())
        self._reading: asyncio.Future[Any] | None = None
        self._dead_at = time.monotonic() + SILENCE

    async def _write(self) -> None:
        while True:
            await self._call.write(await self._outgoing.get())

    async def next(self, end: float) -> list[Update] | GatewayError:
        """What happened, or why the call ended. Empty if it is time for something else."""
        now = time.monotonic()
        if now >= self._dead_at:
            return SILENT
        for request in self._session.due(now):
            self._outgoing.put_nowait(request)
        self._reading = self._reading or asyncio.ensure_future(self._call.read())
        wake = min(end, self._dead_at, self._session.due_at() or math.inf)
        done, _ = await asyncio.wait([self._reading], timeout=max(0.0, wake - now))
        if not done:
            return []
        reading, self._reading = self._reading, None
        try:
            response = reading.result()
        except grpc.RpcError as error:
            return of_call(error)
        if response is grpc.aio.EOF:
            return ENDED_EARLY
        now = time.monotonic()
        self._dead_at = now + SILENCE
        return list(self._session.receive(response, now))

    async def close(self) -> None:
        self._call.cancel()
        tasks = [task for task in (self._writing, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


__all__ = ["JobClient"]
