"""The watches of one `follow`, without I/O: what to send, what a response means, when to resume."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import grpc
from google.protobuf.duration_pb2 import Duration
from jobwatch.v1.job_pb2 import JobRef, JobStatus, JobStatusView
from jobwatch.v1.job_status_service_pb2 import (
    AddWatch,
    DownloadArtifactRequest,
    DownloadArtifactResponse,
    WatchJobRequest,
    WatchJobsRequest,
    WatchJobsResponse,
)

from ._errors import GatewayError, NotEnded, of_element

#: A job: a JobRef, or "BACKEND/JOB_ID".
Job = JobRef | str

_HEARTBEAT = 20
#: A call without any message for this long is dead.
SILENCE = 60.0
SILENT = GatewayError(grpc.StatusCode.UNAVAILABLE, "the gateway sent nothing for a minute")
ENDED_EARLY = GatewayError(grpc.StatusCode.UNAVAILABLE, "the call ended before the jobs did")

RESULT = "jobwatch:result"
#: Interruptions of a download in a row without progress.
_MOST_FAILURES = 5

#: Receives why nothing newer is known at present.
OnProblem = Callable[[GatewayError], None]

_log = logging.getLogger("jobwatch_client")


def job_ref(job: Job) -> JobRef:
    if isinstance(job, JobRef):
        return job
    backend, slash, job_id = job.partition("/")
    if not (backend and slash and job_id):
        raise ValueError(f'{job!r} is not a job; write a JobRef or "BACKEND/JOB_ID"')
    return JobRef(backend=backend, job_id=job_id)


def job_refs(jobs: Job | Iterable[Job]) -> list[JobRef]:
    return [job_ref(jobs)] if isinstance(jobs, (JobRef, str)) else [job_ref(job) for job in jobs]


@dataclass(frozen=True)
class Update:
    """What happened to a job, or to all that are open. If neither is set, a problem has passed."""

    #: The job; the first one of `jobs`.
    job: JobRef
    #: A new status.
    status: JobStatus | None = None
    #: Nothing newer is known at present: the vendor can't be polled, or the gateway can't be
    #: reached. The watch goes on.
    problem: GatewayError | None = None
    #: The watch has ended with this error.
    error: GatewayError | None = None
    #: The jobs that it is about: one, or with a lost connection all that are open.
    jobs: tuple[JobRef, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", self.jobs or (self.job,))

    @property
    def ended(self) -> bool:
        """Whether this is the last update of the job."""
        return self.error is not None or (self.status is not None and self.status.terminal)


@dataclass(frozen=True)
class Options:
    view: JobStatusView
    poll_interval: float | None
    state_changes_only: bool


@dataclass
class _Watch:
    request: WatchJobRequest
    failures: int = 0
    has_problem: bool = False
    status: JobStatus | None = None
    problem: GatewayError | None = None
    #: When to add it again, if it ended alone.
    due: float | None = None


@dataclass
class Session:
    jobs: list[JobRef]
    options: Options
    #: An error that ended all open watches, so that another call is needed.
    lost_with: GatewayError | None = None
    _open: dict[int, _Watch] = field(default_factory=dict)
    _failures: int = 0

    def __post_init__(self) -> None:
        for at, job in enumerate(self.jobs):
            request = WatchJobRequest(
                job=job,
                view=self.options.view,
                heartbeat_interval=Duration(seconds=_HEARTBEAT),
                state_changes_only=self.options.state_changes_only,
            )
            if self.options.poll_interval is not None:
                request.poll_interval.FromNanoseconds(round(self.options.poll_interval * 1e9))
            self._open[at] = _Watch(request)

    @property
    def done(self) -> bool:
        return not self._open

    def begin(self) -> list[WatchJobsRequest]:
        """The first requests of a call."""
        self.lost_with = None
        for watch in self._open.values():
            watch.due = None
        return [_add(at, watch) for at, watch in self._open.items()]

    def due_at(self) -> float | None:
        """When a watch is to be added again."""
        return min((watch.due for watch in self._open.values() if watch.due is not None), default=None)

    def due(self, now: float) -> list[WatchJobsRequest]:
        """Watches to add again."""
        found = [(at, watch) for at, watch in self._open.items() if watch.due is not None and watch.due <= now]
        for _, watch in found:
            watch.due = None
        return [_add(at, watch) for at, watch in found]

    def receive(self, response: WatchJobsResponse, now: float) -> Iterator[Update]:
        """What a response means."""
        at = response.watch_id
        watch = self._open.get(at)
        if watch is None:
            return
        job = self.jobs[at]
        if response.HasField("event"):
            event = response.event
            watch.failures = self._failures = 0
            watch.request.resume_token = event.resume_token or watch.request.resume_token
            if event.HasField("interruption"):
                watch.has_problem = True
                watch.problem = of_element(event.interruption.cause)
                yield Update(job, problem=watch.problem)
                return
            watch.problem = None
            had_problem, watch.has_problem = watch.has_problem, False
            if event.HasField("status"):
                watch.status = event.status
                if event.status.terminal:
                    del self._open[at]
                yield Update(job, status=event.status)
            elif had_problem:
                yield Update(job)
        elif response.HasField("end"):
            error = of_element(response.end)
            if error.code is grpc.StatusCode.OK:
                error = GatewayError(grpc.StatusCode.UNAVAILABLE, "the watch ended before the job did")
            if not error.resumable:
                del self._open[at]
                yield Update(job, error=error)
                return
            watch.due = now + error.wait_before_next(watch.failures)
            watch.failures += 1
            watch.has_problem = True
            watch.problem = error
            if all(watch.due is not None for watch in self._open.values()):
                # A gateway that shuts down ends every watch: another call reaches another one.
                self.lost_with = error
            else:
                yield Update(job, problem=error)

    def lost(self, error: GatewayError) -> tuple[list[Update], float]:
        """The call has failed: what to report, once for all jobs, and how long to wait before another."""
        if not error.resumable:
            return self._end(error), 0.0
        wait = error.wait_before_next(self._failures)
        self._failures += 1
        for watch in self._open.values():
            watch.has_problem = True
            watch.problem = error
        jobs = tuple(self.jobs[at] for at in self._open)
        return [Update(jobs[0], problem=error, jobs=jobs)], wait

    def timed_out(self, timeout: float) -> list[Update]:
        ended = []
        for at, watch in self._open.items():
            error = NotEnded(timeout, watch.status)
            error.problem = watch.problem
            ended.append(Update(self.jobs[at], error=error))
        self._open.clear()
        return ended

    def _end(self, error: GatewayError) -> list[Update]:
        ended = [Update(self.jobs[at], error=error) for at in self._open]
        self._open.clear()
        return ended


@dataclass
class Waiting:
    """Makes the result of `wait` of updates."""

    on_problem: OnProblem | None = None

    def take(self, update: Update) -> JobStatus | None:
        """The terminal status, or nothing yet."""
        if update.error:
            raise update.error
        if update.problem and not update.problem.resumable:
            # The gateway would go on until somebody corrects this, such as its credentials.
            raise update.problem
        if update.problem and self.on_problem:
            self.on_problem(update.problem)
        elif update.problem:
            job = f"{update.job.backend}/{update.job.job_id}"
            _log.warning("still waiting for %s: %s", job, update.problem)
        return update.status if update.ended else None


class Download:
    """A download through interruptions: what to request, and when to give up."""

    def __init__(self, job: Job, artifact_id: str) -> None:
        self.request = DownloadArtifactRequest(job=job_ref(job), artifact_id=artifact_id)
        self._failures = 0

    def receive(self, response: DownloadArtifactResponse) -> bytes:
        """The bytes of a response; the next call goes on after them."""
        self.request.if_version = self.request.if_version or response.info.version
        if response.data:
            self.request.offset += len(response.data)
            self._failures = 0
        return response.data

    def interrupted(self, error: GatewayError) -> float:
        """The wait before the next call. Raises the error if there is to be none."""
        if not error.resumable or self._failures == _MOST_FAILURES:
            raise error
        self._failures += 1
        return error.wait_before_next(self._failures - 1)


def _add(at: int, watch: _Watch) -> WatchJobsRequest:
    return WatchJobsRequest(add=AddWatch(watch_id=at, watch=watch.request))
