"""A Prefect server with SQLite on loopback, and what a gateway reads of its flow runs."""

import base64
import json
import os
import signal
import time
import uuid

from gateway import PATIENCE, ROOT, Gateway, Processes, check, fields, free_port, moment, request, until, watched

USER, PASSWORD = "ana", "p4ss"
FLOWS = ["completes", "fails", "retried", "waits-for-its-retry", "times-out", "crashes", "pauses"]
STATES = {
    "SCHEDULED": "PENDING", "PENDING": "PENDING", "RUNNING": "RUNNING", "PAUSED": "RUNNING", "CANCELLING": "CANCELLING",
    "COMPLETED": "SUCCEEDED", "FAILED": "FAILED", "CRASHED": "FAILED", "CANCELLED": "CANCELLED",
}
NAMED = {"AwaitingRetry": "RETRYING", "TimedOut": "EXPIRED"}
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Prefect:
    def __init__(self, venv, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.bin = venv / "bin"
        pair = f"{USER}:{PASSWORD}"
        self.authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        environment = {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": pair,
            "PREFECT_SERVER_API_AUTH_STRING": pair,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            # Times that a busy machine would miss.
            "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
            "PREFECT_API_REQUEST_TIMEOUT": "300",
            "DO_NOT_TRACK": "1",
        }
        self.processes = Processes(folder, environment)

    def start_server(self):
        self.processes.start(
            "prefect-server", self.bin / "prefect", "server", "start", "--host", "127.0.0.1", "--port", self.port, "--no-ui"
        )
        until("the server of Prefect answers", lambda: self.call("health")[0] == 200)

    def start_runner(self):
        self.processes.start("prefect-runner", self.bin / "python", ROOT / "tests/vendors/flows/checked.py")

    def start(self):
        self.start_server()
        self.start_runner()
        until("Prefect has the deployments", lambda: all(self.deployment(flow)[0] == 200 for flow in FLOWS))

    def call(self, path, body=None, method=None):
        """Tries again where the database was busy, as Prefect's own client does."""
        end = time.monotonic() + PATIENCE
        while True:
            answer = request(f"{self.url}/{path}", body, method, Authorization=self.authorization)
            if answer[0] != 503 or time.monotonic() > end:
                return answer
            time.sleep(0.5)

    def deployment(self, flow):
        return self.call(f"deployments/name/{flow}/{flow}")

    def trigger(self, flow, **parameters):
        number = json.loads(self.deployment(flow)[1])["id"]
        body = {"parameters": parameters, "idempotency_key": str(uuid.uuid4())}
        status, body = self.call(f"deployments/{number}/create_flow_run", body)
        check(f"Prefect takes a run of {flow}", status in (200, 201), True)
        return json.loads(body)["id"]

    def set_state(self, run, kind, name=None):
        """What Prefect makes of it."""
        status, body = self.call(f"flow_runs/{run}/set_state", {"state": {"type": kind, "name": name}})
        check(f"Prefect answers to the state {name or kind}", status in (200, 201), True)
        return json.loads(body)

    def signal_runner(self, number):
        os.kill(self.processes.running["prefect-runner"].pid, number)

    def run(self, run):
        """The run as Prefect's own API has it."""
        return json.loads(self.call(f"flow_runs/{run}")[1])


def compare(title, status, run):
    """Each field of a status with what Prefect says of the run."""
    kind, name = run["state_type"], run["state_name"]
    is_end = kind in ENDS
    message = run["state"]["message"] if is_end and kind != "COMPLETED" else None
    got = fields(status, "progress", "result", "artifacts", "vendorUrl") | {"error": status.get("error", {}).get("message")}
    check(title, got, {
        "job": run["id"],
        "state": (NAMED.get(name) or STATES[kind], is_end),
        "vendorState": name,
        "jobType": None,
        "description": run["name"],
        "owner": (run.get("created_by") or {}).get("display_value"),
        "createTime": moment(run["created"]),
        "startTime": moment(run["start_time"]),
        "endTime": moment(run["end_time"]),
        "error": message,
        "others": [],
    })


def backends(prefect, gateway):
    way = [gateway.definition("prefect"), f'base_url = "{prefect.url}"']
    gateway.write({
        "prefect": [*way, f'credentials = {{ username = "{USER}", password = "{PASSWORD}" }}'],
        "wrong": [*way, f'credentials = {{ username = "{USER}", password = "another" }}'],
    })


def ends(prefect, gateway):
    """Runs of all flows that end by themselves."""
    runs = {flow: prefect.trigger(flow) for flow in ["completes", "fails", "retried", "times-out", "crashes"]}
    watches = {flow: gateway.watch(f"prefect/{run}") for flow, run in runs.items()}
    wanted = {"completes": "SUCCEEDED", "fails": "FAILED", "retried": "SUCCEEDED", "times-out": "EXPIRED", "crashes": "FAILED"}
    for flow, watch in watches.items():
        code = 0 if wanted[flow] == "SUCCEEDED" else 1
        check(f"the watch of {flow} ends after {wanted[flow]}", (watch.end(), watch.states()[-1]), (code, wanted[flow]))
        compare(f"every field of {flow} is Prefect's", watch.statuses()[-1], prefect.run(runs[flow]))
    return runs, watches


def held(prefect, gateway):
    """A run that is running, one that is paused, and one that waits for its retry."""
    running = prefect.trigger("completes", gate="held")
    watch = gateway.watch(f"prefect/{running}")
    until("a watch sees the run RUNNING", lambda: watch.states()[-1:] == ["RUNNING"])
    compare("every field of a run that is running is Prefect's", gateway.get(f"prefect/{running}"), prefect.run(running))
    prefect.processes.open("held")
    check("its watch ends with 0 after SUCCEEDED", (watch.end(), watch.states()[-1]), (0, "SUCCEEDED"))

    paused = prefect.trigger("pauses")
    resumed = gateway.watch(f"prefect/{paused}")
    until("a watch sees the run Paused", lambda: "Paused" in resumed.vendor_states())
    compare("a paused run counts as running", gateway.get(f"prefect/{paused}"), prefect.run(paused))
    status, _ = prefect.call(f"flow_runs/{paused}/resume", {})
    check("Prefect resumes it", status, 201)
    check("its watch ends with 0 after SUCCEEDED", (resumed.end(), resumed.states()[-1]), (0, "SUCCEEDED"))

    waiting = prefect.trigger("waits-for-its-retry")
    retrying = gateway.watch(f"prefect/{waiting}")
    until("a watch sees the run RETRYING", lambda: retrying.states()[-1:] == ["RETRYING"])
    compare("a run that is AwaitingRetry is RETRYING", gateway.get(f"prefect/{waiting}"), prefect.run(waiting))
    check("Prefect cancels it at once", prefect.set_state(waiting, "CANCELLING")["state"]["type"], "CANCELLED")
    check("its watch ends with 1 after CANCELLED", (retrying.end(), retrying.states()[-1]), (1, "CANCELLED"))
    compare("every field of it is Prefect's", retrying.statuses()[-1], prefect.run(waiting))

    stopping = prefect.trigger("completes", gate="never")
    cancelled = gateway.watch(f"prefect/{stopping}")
    until("a watch sees the run RUNNING", lambda: cancelled.states()[-1:] == ["RUNNING"])
    prefect.signal_runner(signal.SIGSTOP)
    check("Prefect asks the runner to cancel it", prefect.set_state(stopping, "CANCELLING")["state"]["type"], "CANCELLING")
    until("its watch sees it CANCELLING", lambda: cancelled.states()[-1:] == ["CANCELLING"])
    compare("a run that is cancelling goes on", gateway.get(f"prefect/{stopping}"), prefect.run(stopping))
    prefect.signal_runner(signal.SIGCONT)
    check("its watch ends with 1 after CANCELLED", (cancelled.end(), cancelled.states()[-1]), (1, "CANCELLED"))
    compare("every field of a cancelled run is Prefect's", cancelled.statuses()[-1], prefect.run(stopping))
    return resumed, retrying, cancelled


def batches(prefect, gateway, runs):
    unknown = str(uuid.uuid4())
    jobs = [*runs.values(), unknown, "no-uuid"]
    results = gateway.batch(*(f"prefect/{job}" for job in jobs))
    check("a batch answers in order", [result["job"]["jobId"] for result in results], jobs)
    for (flow, run), result in zip(runs.items(), results):
        compare(f"in a batch: {flow}", result.get("status", {}), prefect.run(run))
    reasons = [result.get("error", {}).get("reason") for result in results[len(runs):]]
    check("an unknown run is not found, and no id but a UUID is taken", reasons, ["JOB_NOT_FOUND", "INVALID_JOB_ID"])
    check("a call for an unknown run alone too", gateway.reason(f"prefect/{unknown}"), "JOB_NOT_FOUND")
    check("a wrong password is rejected", gateway.reason(f"wrong/{unknown}"), "BACKEND_CREDENTIALS_REJECTED")


def outage(prefect, gateway):
    """A run is late because no runner is there; the server stops and starts meanwhile."""
    prefect.processes.end("prefect-runner")
    run = prefect.trigger("completes")
    watch = gateway.watch(f"prefect/{run}")
    until("a watch sees the run Late", lambda: watch.vendor_states()[-1:] == ["Late"])
    compare("a late run is pending", gateway.get(f"prefect/{run}"), prefect.run(run))
    prefect.processes.end("prefect-server", signal.SIGKILL)
    until("the watch is interrupted", watch.interrupted)
    check("a call fails meanwhile", gateway.get(f"prefect/{uuid.uuid4()}").get("error", {}).get("code"), 14)
    prefect.start_server()
    prefect.start_runner()
    check("the watch sees the end through all of this", (watch.end(), watch.states()[-1]), (0, "SUCCEEDED"))
    compare("as Prefect has it", watch.statuses()[-1], prefect.run(run))
    return watch


def ended_again(prefect, gateway, run):
    """A run that failed is retried under its id."""
    count = prefect.run(run)["run_count"]
    prefect.set_state(run, "SCHEDULED", "AwaitingRetry")
    gateway.restart()
    watch = gateway.watch(f"prefect/{run}")
    check("a run that is retried goes to an end again", (watch.end(), watch.states()[-1]), (1, "FAILED"))
    compare("every field of it is Prefect's", watch.statuses()[-1], prefect.run(run))
    check("it has run once more", prefect.run(run)["run_count"], count + 1)


def run(program, venv, folder):
    """All checks; rows of what was watched."""
    prefect = Prefect(venv, folder)
    gateway = Gateway(program, prefect.processes, "prefect")
    with watched(prefect.processes, gateway, "prefect-server", "prefect-runner"):
        prefect.start()
        backends(prefect, gateway)
        gateway.start()
        check("check --connect finds the wrong password", gateway.checked(), {"prefect": "OK", "wrong": "FAILED"})
        runs, watches = ends(prefect, gateway)
        resumed, retrying, cancelled = held(prefect, gateway)
        batches(prefect, gateway, runs)
        through = outage(prefect, gateway)
        ended_again(prefect, gateway, runs["fails"])
        rows = [("Prefect", f"a run of {flow}", watch) for flow, watch in watches.items()]
        return [
            *rows, ("Prefect", "a run that pauses", resumed), ("Prefect", "a run that is cancelled before its retry", retrying),
            ("Prefect", "a run that is cancelled", cancelled),
            ("Prefect", "a late run through an outage", through),
        ]
