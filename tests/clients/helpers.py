"""Checks the package of clients/python against a gateway.

    python tests/clients/helpers.py GATEWAY SIMULATOR

SIMULATOR is the URL of the gateway's simulated Immuta, the backend "immuta". The backend "down" has
no listener, and "locked" has the wrong credentials.
"""

import asyncio
import logging
import socket
import sys

import grpc
from google.rpc import error_details_pb2, status_pb2
from jobwatch.v1 import job_pb2, job_status_service_pb2, job_status_service_pb2_grpc
from jobwatch_client import CHANNEL_OPTIONS, GatewayError, JobClient, JobRef, JobState, NotEnded, aio
from jobwatch_client._errors import of_call

from checks import check, finish, simulator


def failure(call):
    """The error of a call."""
    try:
        return call()
    except GatewayError as error:
        return error


def outcome(update):
    if update.error:
        return update.error.reason
    return JobState.Name(update.status.state) if update.status else None


class Failed(grpc.RpcError):
    """A failed call, as grpcio raises it."""

    def __init__(self, code, details=()):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return "no"

    def trailing_metadata(self):
        status = status_pb2.Status()
        for detail in self._details:
            status.details.add().Pack(detail)
        return (("grpc-status-details-bin", status.SerializeToString()),) if self._details else None


def check_codes():
    code, info = grpc.StatusCode, error_details_pb2.ErrorInfo(reason="R", domain="jobwatch", metadata={"a": "b"})
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    for failed, resumes in [
        (Failed(code.UNAVAILABLE), True),
        (Failed(code.UNAVAILABLE, [info, retry]), True),
        (Failed(code.DEADLINE_EXCEEDED, [info]), True),
        (Failed(code.INTERNAL), True),
        (Failed(code.INTERNAL, [info]), False),
        (Failed(code.CANCELLED), True),
        (Failed(code.RESOURCE_EXHAUSTED), False),
        (Failed(code.RESOURCE_EXHAUSTED, [info, retry]), True),
        (Failed(code.NOT_FOUND, [info]), False),
        (Failed(code.FAILED_PRECONDITION, [info, retry]), False),
    ]:
        check(f"whether it resumes after {failed._code.name}", of_call(failed).resumable, resumes)
    error = of_call(Failed(code.UNAVAILABLE, [retry, info]))
    check("an error is decoded", (error.reason, error.metadata, error.retry_delay), ("R", {"a": "b"}, 1.5))
    check("a requested wait is a minimum", error.wait_before_next(0) >= 1.5, True)
    unavailable = of_call(Failed(code.UNAVAILABLE))
    check("a back-off has a bound", unavailable.wait_before_next(10**6) <= 10, True)
    early = max(unavailable.wait_before_next(failures) for failures in range(5) for _ in range(200))
    check("the first five tries come soon", early <= 2, True)
    late = max(unavailable.wait_before_next(9) for _ in range(200))
    check("later ones come more rarely", late > 4, True)


def check_threads(address, url, jobs):
    def start(plan):
        return simulator(url, "jobs", plan)["id"]

    running, done = start({"held": "active"}), start({})
    failed = start({"end": {"failure": {"message": "no such column"}}})

    status = jobs.wait(f"immuta/{done}", timeout=60)
    check("a wait ends with the terminal status", (status.job.job_id, status.terminal), (done, True))
    status = jobs.wait(JobRef(backend="immuta", job_id=failed))
    check("a failed job is a status with the vendor's words", status.error.message, "no such column")

    error = failure(lambda: jobs.wait(f"immuta/{running}", timeout=1))
    check("a wait that is too short fails", type(error), NotEnded)
    check("it is a TimeoutError", isinstance(error, TimeoutError), True)
    check("it has the newest status", error.status.state, job_pb2.JOB_STATE_RUNNING)
    error = failure(lambda: jobs.wait("down/1", timeout=2))
    check("an outage of the vendor is shown", (type(error), error.problem.reason), (NotEnded, "BACKEND_UNAVAILABLE"))
    check("it is in the message", "before that: UNAVAILABLE" in str(error), True)
    error = failure(lambda: jobs.wait("locked/1"))
    check("rejected credentials end a wait", error.reason, "BACKEND_CREDENTIALS_REJECTED")
    error = failure(lambda: jobs.wait("immuta/no-such-job"))
    check("an unknown job ends a wait", (error.code, error.reason), (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"))
    error = failure(lambda: jobs.wait("nowhere/1"))
    check("an error has its metadata", error.metadata["known_backends"], "down,immuta,locked")
    error = failure(lambda: list(jobs.download(f"immuta/{done}", "no-such-file")))
    check("a download of no file fails", error.reason, "ARTIFACT_NOT_FOUND")
    for wrong in ["immuta", "immuta/", "/1", ""]:
        try:
            jobs.wait(wrong)
            check(f"{wrong!r} is refused", "not refused", "")
        except ValueError as error:
            check(f"{wrong!r} is refused", str(error), f'{wrong!r} is not a job; write a JobRef or "BACKEND/JOB_ID"')

    names = [f"immuta/{running}", "immuta/no-such-job", f"immuta/{done}", f"immuta/{failed}"]
    seen = {name: [] for name in names}
    for update in jobs.follow(names, timeout=60):
        seen[f"{update.job.backend}/{update.job.job_id}"].append(outcome(update))
        if all(seen.values()) and seen[names[0]] == ["JOB_STATE_RUNNING"]:
            simulator(url, f"jobs/{running}/finish")
    check("one job of many fails alone", seen[names[1]], ["JOB_NOT_FOUND"])
    check("each of the others ends once", [seen[names[0]], seen[names[2]], seen[names[3]]], [
        ["JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"], ["JOB_STATE_SUCCEEDED"], ["JOB_STATE_FAILED"],
    ])
    check("no jobs have no updates", list(jobs.follow([])), [])

    held = [f"immuta/{start({'held': 'active'})}" for _ in range(3)]
    ended = [update for update in jobs.follow(held, timeout=1) if update.ended]
    check("all that has not ended fails at the timeout", [type(update.error) for update in ended], [NotEnded] * 3)
    words = "DEADLINE_EXCEEDED: not ended after 1 s; it was RUNNING"
    check("the error says so in words", [str(update.error) for update in ended], [words] * 3)
    updates = jobs.follow(held)
    next(updates)
    updates.close()
    check("a closed iterator ends its watches", watched(address, 0), 0)


def check_unreachable():
    """What a wait and a watch say of a gateway that is not there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        jobs = JobClient(channel)
        problems = []
        error = failure(lambda: jobs.wait("immuta/1", timeout=3, on_problem=problems.append))
        check("a wait without a gateway ends at its timeout", type(error), NotEnded)
        check("it reports each failure", len(problems) > 1, True)
        check("with its code", {problem.code for problem in problems}, {grpc.StatusCode.UNAVAILABLE})
        with Recorder() as lines:
            failure(lambda: jobs.wait("immuta/1", timeout=1))
        check("without a function the failures are logged", lines[0].startswith("still waiting for immuta/1: UNAVAILABLE"), True)
        names = ["immuta/1", "immuta/2", "immuta/3"]
        updates = [update for update in jobs.follow(names, timeout=2)]
        lost = [update for update in updates if update.problem]
        check("a lost connection is one update", {len(update.jobs) for update in lost}, {3})
        check("it has all jobs", [job.job_id for job in lost[0].jobs], ["1", "2", "3"])
        check("each job ends by itself", [update.job.job_id for update in updates if update.error], ["1", "2", "3"])


class Recorder(logging.Handler):
    """The lines of the package's logger."""

    def __enter__(self):
        self.lines = []
        logging.getLogger("jobwatch_client").addHandler(self)
        return self.lines

    def __exit__(self, *_):
        logging.getLogger("jobwatch_client").removeHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())


def watched(address, wanted):
    """The number of watched jobs, once it is the wanted one."""
    with grpc.insecure_channel(address) as channel:
        stub = job_status_service_pb2_grpc.JobStatusServiceStub(channel)
        for _ in range(3000):
            response = stub.ListBackends(job_status_service_pb2.ListBackendsRequest(), timeout=20)
            number = next(backend.watched_jobs for backend in response.backends if backend.name == "immuta")
            if number == wanted:
                break
    return number


async def check_asyncio(address, url):
    async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        jobs = aio.JobClient(channel)
        done, running = simulator(url, "jobs", {})["id"], simulator(url, "jobs", {"held": "active"})["id"]
        status = await jobs.wait(f"immuta/{done}", timeout=60)
        check("asyncio: a wait ends with the terminal status", status.terminal, True)
        try:
            await jobs.wait(f"immuta/{running}", timeout=1)
        except NotEnded as error:
            check("asyncio: the timeout has the newest status", error.status.state, job_pb2.JOB_STATE_RUNNING)
        try:
            await jobs.wait("locked/1")
        except GatewayError as error:
            check("asyncio: rejected credentials end a wait", error.reason, "BACKEND_CREDENTIALS_REJECTED")
        seen = {}
        async for update in jobs.follow([f"immuta/{done}", "immuta/no-such-job"]):
            seen[update.job.job_id] = outcome(update)
        check("asyncio: one job of many fails alone", seen, {done: "JOB_STATE_SUCCEEDED", "no-such-job": "JOB_NOT_FOUND"})
        problems = []
        try:
            await jobs.wait("down/1", timeout=2, on_problem=problems.append)
        except NotEnded:
            check("asyncio: problems are reported", problems[0].reason, "BACKEND_UNAVAILABLE")
        waiting = asyncio.ensure_future(jobs.wait(f"immuta/{running}"))
        await asyncio.to_thread(watched, address, 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        check("asyncio: a cancelled wait ends its watch", await asyncio.to_thread(watched, address, 0), 0)


def main(address, url):
    check_codes()
    check_unreachable()
    with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        check_threads(address, url, JobClient(channel))
    asyncio.run(check_asyncio(address, url))
    finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
