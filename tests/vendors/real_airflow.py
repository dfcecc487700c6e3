"""Apache Airflow with SQLite on loopback, and what a gateway reads of its DAG runs."""

import base64
import json
import signal
import urllib.parse

from gateway import ROOT, Gateway, Processes, check, fields, free_port, moment, request, until, watched

USER, PASSWORD = "ana", 'p4ss "{{ word }}"'
STATES = {"queued": "PENDING", "running": "RUNNING", "success": "SUCCEEDED", "failed": "FAILED"}
# Airflow takes such an id only with another scheduler.allowed_run_id_pattern than its own.
ODD = 'odd: 1+2 %41 é#?&"{{ id }}'
SCHEDULED = "scheduled__2026-01-02T00:00:00+00:00"


class Airflow:
    def __init__(self, venv, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.program = venv / "bin/airflow"
        passwords = folder / "passwords.json"
        passwords.write_text(json.dumps({USER: PASSWORD}))
        environment = {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": "of-this-check",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "tests/vendors/dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN": "^.+$",
            # Times that a busy machine would miss.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "600",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "3600",
            "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "10",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
            "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "100",
        }
        self.processes = Processes(folder, environment)
        self.token = ""

    def start(self):
        self.processes.run(self.program, "db", "migrate")
        self.start_api("first")
        self.start_scheduler("first")
        self.processes.start("airflow-dag-processor", self.program, "dag-processor")
        self.sign_in()
        dags = ["succeeds", "fails", "retried", "paused", "scheduled"]
        until("Airflow has read the DAGs", lambda: all(self.call(f"dags/{dag}")[0] == 200 for dag in dags))

    def keys(self, secret):
        return {"AIRFLOW__API_AUTH__JWT_SECRET": f"{secret} secret, longer than the 64 bytes of a key for HMAC with SHA-512"}

    def start_api(self, secret, **environment):
        """`secret` signs tokens; without one of its own Airflow makes another at each start."""
        self.processes.start("airflow-api-server", self.program, "api-server", **self.keys(secret), **environment)
        health = f"{self.url}/api/v2/monitor/health"
        until("the API of Airflow answers", lambda: request(health)[0] == 200)

    def start_scheduler(self, secret):
        self.processes.start("airflow-scheduler", self.program, "scheduler", "--skip-serve-logs", **self.keys(secret))

    def sign_in(self):
        _, body = request(f"{self.url}/auth/token", {"username": USER, "password": PASSWORD})
        self.token = json.loads(body)["access_token"]

    def call_once(self, path, body=None, method=None):
        return request(f"{self.url}/api/v2/{path}", body, method, Authorization=f"Bearer {self.token}")

    def call(self, path, body=None, method=None):
        """Signs in again where a token has expired."""
        while (answer := self.call_once(path, body, method))[0] == 401:
            self.sign_in()
        return answer

    def trigger(self, dag, run, **keys):
        status, body = self.call(f"dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": None, **keys})
        check(f"Airflow takes the run {dag}/{run}", status, 200)
        return body

    def run(self, dag, run):
        """The run as Airflow's own API has it, byte for byte."""
        return self.call(f"dags/{dag}/dagRuns/{urllib.parse.quote(run, safe='')}")[1]

    def state(self, dag, run):
        return json.loads(self.run(dag, run)).get("state")

    def task_states(self, dag, run):
        _, body = self.call(f"dags/{dag}/dagRuns/{run}/taskInstances")
        return [task["state"] for task in json.loads(body)["task_instances"]]

    def pause(self, dag, is_paused):
        status, _ = self.call(f"dags/{dag}", {"is_paused": is_paused}, "PATCH")
        check(f"Airflow takes is_paused = {is_paused} of {dag}", status, 200)


def backends(airflow, gateway):
    way = [gateway.definition("airflow"), f'base_url = "{airflow.url}"']
    signed_in = lambda password: f"credentials = {{ username = '{USER}', password = '{password}' }}"
    gateway.write({
        "airflow": [*way, signed_in(PASSWORD)],
        "bearer": [*way, f'credentials = {{ bearer = "{airflow.token}" }}'],
        "wrong": [*way, signed_in("another")],
        "elsewhere": [way[0], f'base_url = "{airflow.url}/api/v2"', signed_in(PASSWORD)],
    })


def compare(title, status, run):
    """Each field of a status with what Airflow says of the run."""
    run = json.loads(run)
    check(title, fields(status, "progress", "result", "error", "artifacts", "vendorUrl"), {
        "job": f"{run['dag_id']}/{run['dag_run_id']}",
        "state": (STATES[run["state"]], run["state"] in ("success", "failed")),
        "vendorState": run["state"],
        "jobType": run["run_type"],
        "description": run["note"],
        "owner": run["triggering_user_name"],
        "createTime": moment(run["queued_at"]),
        "startTime": moment(run["start_date"]),
        "endTime": moment(run["end_date"]),
        "others": [],
    })


def credentials(airflow, gateway):
    found = gateway.checked()
    wanted = {"airflow": "OK", "bearer": "OK", "wrong": "FAILED", "elsewhere": "FAILED"}
    check("check --connect finds the wrong password and the wrong base_url, and nothing else", found, wanted)
    check("a wrong password is rejected", gateway.reason("wrong/succeeds/any"), "BACKEND_CREDENTIALS_REJECTED")
    check("no job is missing because base_url is wrong", gateway.reason("elsewhere/succeeds/any") != "JOB_NOT_FOUND", True)


def runs_to_their_ends(airflow, gateway):
    """Runs that are queued, run, succeed and fail, and what they cost."""
    airflow.trigger("succeeds", "held", conf={"gate": "held"}, note="for the books")
    held = gateway.watch("airflow/succeeds/held")
    until("a watch sees the run RUNNING", lambda: held.states()[-1:] == ["RUNNING"])
    compare("every field of a run that is running is Airflow's", gateway.get("airflow/succeeds/held"), airflow.run("succeeds", "held"))
    compare("a bearer token is taken", gateway.get("bearer/succeeds/held"), airflow.run("succeeds", "held"))
    airflow.processes.open("held")
    check("the watch ends with 0 after SUCCEEDED", (held.end(), held.states()[-1]), (0, "SUCCEEDED"))
    compare("the watch's last status is Airflow's", held.statuses()[-1], airflow.run("succeeds", "held"))

    airflow.trigger("fails", "f1")
    failing = gateway.watch("airflow/fails/f1")
    check("the watch ends with 1 after FAILED", (failing.end(), failing.states()[-1]), (1, "FAILED"))
    compare("every field of a failed run is Airflow's", failing.statuses()[-1], airflow.run("fails", "f1"))
    return held, failing


def retried(airflow, gateway):
    """A task that waits for its retry: paused, its DAG keeps it waiting."""
    airflow.trigger("retried", "r1")
    watch = gateway.watch("airflow/retried/r1")
    until("the task runs", lambda: airflow.task_states("retried", "r1") == ["running"])
    airflow.pause("retried", True)
    airflow.processes.open("retried")
    until("its first try has failed", lambda: airflow.task_states("retried", "r1") == ["up_for_retry"])
    compare("while a task is up_for_retry its run is running", gateway.get("airflow/retried/r1"), airflow.run("retried", "r1"))
    check("so Airflow says", airflow.state("retried", "r1"), "running")
    airflow.pause("retried", False)
    check("the second try succeeds, and the run", watch.end(), 0)
    check("no watch of a run sees RETRYING", [state for state in watch.states() if state != "PENDING"], ["RUNNING", "SUCCEEDED"])
    return watch


def odd_ids(airflow, gateway):
    airflow.trigger("succeeds", ODD)
    until("the run with an odd id ends", lambda: airflow.state("succeeds", ODD) == "success")
    until("the scheduled run ends", lambda: airflow.state("scheduled", SCHEDULED) in ("success", "failed"))
    for dag, run in [("succeeds", ODD), ("scheduled", SCHEDULED)]:
        status = gateway.get(f"airflow/{dag}/{run}", "--view", "full")
        compare(f"the id {run} is asked for as it is", status, airflow.run(dag, run))
        payload = base64.b64decode(status["vendorPayload"])
        check("its payload is what Airflow sent, byte for byte", payload, airflow.run(dag, run))
    airflow.trigger("succeeds", "a/b")
    check("Airflow answers no request for a run with a slash", json.loads(airflow.run("succeeds", "a/b")), {"error": "API route not found"})
    check("so its id is refused", gateway.reason("airflow/succeeds/a/b"), "INVALID_JOB_ID")


def batches(airflow, gateway):
    known = [("succeeds", "held"), ("fails", "f1"), ("retried", "r1"), ("succeeds", ODD), ("scheduled", SCHEDULED)]
    unknown = ["succeeds/nope", "nodag/held", "fails/held", "noslash"]
    jobs = [*(f"{dag}/{run}" for dag, run in known), *unknown]
    results = gateway.batch(*(f"airflow/{job}" for job in jobs))
    check("a batch answers in order", [result["job"]["jobId"] for result in results], jobs)
    for (dag, run), result in zip(known, results):
        compare(f"in a batch: {dag}/{run}", result.get("status", {}), airflow.run(dag, run))
    reasons = [result.get("error", {}).get("reason") for result in results[len(known):]]
    missing = ["JOB_NOT_FOUND"] * 3
    check("unknown runs and DAGs, and a run of another DAG, are not found", reasons, [*missing, "INVALID_JOB_ID"])
    check("a call for an unknown run too", gateway.reason("airflow/succeeds/nope"), "JOB_NOT_FOUND")


def cleared(airflow, gateway):
    """A run that goes on after its end."""
    airflow.trigger("succeeds", "again")
    check("the run ends", gateway.watch("airflow/succeeds/again").end(), 0)
    airflow.pause("succeeds", True)
    status, _ = airflow.call("dags/succeeds/dagRuns/again/clear", {"dry_run": False, "only_failed": False})
    check("Airflow clears it", (status, airflow.state("succeeds", "again")), (200, "queued"))
    until("the gateway sees it open", lambda: not gateway.get("airflow/succeeds/again").get("terminal", False))
    compare("as Airflow has it", gateway.get("airflow/succeeds/again"), airflow.run("succeeds", "again"))
    watch = gateway.watch("airflow/succeeds/again")
    until("a watch follows it", lambda: watch.states() == ["PENDING"])
    airflow.pause("succeeds", False)
    check("to its second end", watch.end(), 0)
    compare("whose times are new", watch.statuses()[-1], airflow.run("succeeds", "again"))


def outage(airflow, gateway):
    """Airflow's API stops, and starts with another secret and short tokens."""
    airflow.trigger("paused", "p1", conf={"gate": "p1"})
    watch = gateway.watch("airflow/paused/p1")
    until("a watch sees the run PENDING", lambda: watch.states() == ["PENDING"])
    airflow.processes.end("airflow-api-server", signal.SIGKILL)
    airflow.processes.end("airflow-scheduler")
    until("the watch is interrupted", watch.interrupted)
    check("a call fails meanwhile", gateway.get("airflow/paused/other").get("error", {}).get("code"), 14)
    refreshes = gateway.token_refreshes()
    airflow.start_api(
        "second", AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME="30", AIRFLOW__API_AUTH__JWT_LEEWAY="1"
    )
    airflow.start_scheduler("second")
    status, body = airflow.call("dags/paused/dagRuns/p1")
    check("Airflow refuses tokens of the time before", (status, json.loads(body)), (403, {"detail": "Invalid JWT token"}))
    until("the gateway exchanges its secret again", lambda: gateway.token_refreshes() > refreshes)
    airflow.sign_in()
    compare("and reads the run", gateway.get("airflow/paused/p1"), airflow.run("paused", "p1"))
    check("a bearer token of the time before is rejected", gateway.reason("bearer/paused/p1"), "BACKEND_CREDENTIALS_REJECTED")

    refreshes = gateway.token_refreshes()
    expired = lambda: airflow.call_once("dags/paused/dagRuns/p1")
    until("a token expires", lambda: expired()[0] == 401)
    check("which Airflow says", json.loads(expired()[1]), {"detail": "Token Expired"})
    until("the gateway renews its own", lambda: gateway.token_refreshes() > refreshes)

    airflow.pause("paused", False)
    airflow.processes.open("p1")
    check("the watch sees the end through all of this", (watch.end(), watch.states()[-1]), (0, "SUCCEEDED"))
    compare("as Airflow has it", watch.statuses()[-1], airflow.run("paused", "p1"))
    return watch


def run(program, venv, folder):
    """All checks; rows of what was watched."""
    airflow = Airflow(venv, folder)
    gateway = Gateway(program, airflow.processes, "airflow")
    with watched(airflow.processes, gateway, "airflow-api-server", "airflow-scheduler"):
        airflow.start()
        backends(airflow, gateway)
        gateway.start()
        credentials(airflow, gateway)
        held, failing = runs_to_their_ends(airflow, gateway)
        again = retried(airflow, gateway)
        odd_ids(airflow, gateway)
        batches(airflow, gateway)
        cleared(airflow, gateway)
        through = outage(airflow, gateway)
        return [
            ("Airflow", "a run that succeeds", held), ("Airflow", "a run that fails", failing),
            ("Airflow", "a run whose task is retried", again), ("Airflow", "a run through an outage", through),
        ]
