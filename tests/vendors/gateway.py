"""A gateway in front of real software: processes on loopback, calls through `jobwatch get`, `watch`
and `batch`, and waits that are bounded.

Every wait is for something that is certain to come. The bounds are minutes: they only end a run in
which it does not.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/clients"))

from checks import check, finish  # noqa: E402, F401

# Longest wait for anything, in seconds.
PATIENCE = 600
# Short intervals, and no time-out that a busy machine can miss.
POLL = '{ min_interval = "500ms", max_interval = "1s", max_backoff = "1s", login_backoff = "1s", timeout = "2m" }'
# The address is loopback's, whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    pass


def free_port():
    """A port that no outgoing connection takes while its server is stopped."""
    while True:
        with socket.socket() as listener:
            try:
                port = random.randrange(20000, 32000)
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def until(title, condition):
    """Waits for a condition, and returns what it returned."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            check(title, f"not within {PATIENCE} s", "in time")
            raise Failed
        time.sleep(0.5)
    check(title, True, True)
    return found


def request(url, body=None, method=None, **headers):
    """The status and the body of an answer; (0, b"") without one."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    try:
        with OPENER.open(urllib.request.Request(url, data, headers, method=method), timeout=120) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def moment(text):
    """A time in UTC to the microsecond, `None` for none."""
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def fields(status, *others):
    """What a status says, in a form to compare; of `others`, which of them it has."""
    return {
        "job": status.get("job", {}).get("jobId"),
        "state": (state_of(status), status.get("terminal", False)),
        **{key: status.get(key) for key in ("vendorState", "jobType", "description", "owner")},
        **{key: moment(status.get(key)) for key in ("createTime", "startTime", "endTime")},
        "others": sorted(set(status) & set(others)),
    }


class Processes:
    """What a check starts. Each process leads a group, so that its children end with it."""

    def __init__(self, folder, environment):
        self.folder = Path(folder)
        self.gates = self.folder / "gates"
        self.gates.mkdir()
        common = {
            "NO_PROXY": "127.0.0.1",
            "PYTHONDONTWRITEBYTECODE": "1",
            # For gates.py, which waits for files there.
            "PYTHONPATH": str(Path(__file__).resolve().parent),
            "REAL_VENDORS_GATES": str(self.gates),
        }
        self.environment = {**os.environ, **common, **environment}
        self.running = {}

    def open(self, gate):
        """Lets what waits for the gate go on."""
        (self.gates / gate).touch()

    def start(self, name, *command, **environment):
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**self.environment, **environment}, start_new_session=True,
            )

    def run(self, *command):
        """Waits for a command, and fails with its last lines if it does."""
        done = subprocess.run(
            [str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.folder,
            env=self.environment, timeout=PATIENCE, check=False,
        )
        if done.returncode != 0:
            print("\n".join((done.stdout + done.stderr).splitlines()[-20:]))
            check(" ".join(map(str, command)), done.returncode, 0)
            raise Failed

    def end(self, name, number=signal.SIGTERM):
        """Ends a process, waits for it, and ends what is left of its children."""
        process = self.running.pop(name)
        self.signal_group(process, number)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            self.signal_group(process, signal.SIGKILL)
            process.wait(60)
        self.signal_group(process, signal.SIGKILL)

    @staticmethod
    def signal_group(process, number):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass

    def stop(self):
        for name in list(self.running):
            self.end(name, signal.SIGKILL)

    def last_lines(self, name, count=15):
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:]) if path.exists() else ""


class Watch:
    """`jobwatch watch` in the background."""

    def __init__(self, gateway, job):
        self.out = gateway.folder / f"watch-{time.monotonic_ns()}.jsonl"
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(
                [gateway.program, "watch", "--json", "--server", gateway.url, job], stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.DEVNULL, env=gateway.processes.environment,
            )
        gateway.watches.append(self)

    def events(self):
        lines = self.out.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def statuses(self):
        return [event["status"] for event in self.events() if "status" in event]

    def states(self):
        """The states in order, without repetitions."""
        states = [state_of(status) for status in self.statuses()]
        return [state for place, state in enumerate(states) if place == 0 or states[place - 1] != state]

    def vendor_states(self):
        return [status.get("vendorState") for status in self.statuses()]

    def interrupted(self):
        return any("interruption" in event for event in self.events())

    def end(self):
        """Waits for the end of the job; the exit code. Keeps what was seen."""
        code = self.process.wait(PATIENCE)
        self.seen, self.words = self.states(), self.vendor_states()
        return code


def state_of(status):
    return status.get("state", "JOB_STATE_UNSPECIFIED").removeprefix("JOB_STATE_")


class Gateway:
    def __init__(self, program, processes, name):
        self.program, self.processes, self.folder = str(program), processes, processes.folder
        self.name = f"gateway-{name}"
        self.port, self.admin = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.watches = []
        self.config = self.folder / f"{self.name}.toml"

    def definition(self, name):
        """The key of a backend: the vendor of the program, or the file of this checkout."""
        listed = subprocess.run([self.program, "vendor", "list"], capture_output=True, text=True, check=True)
        names = {line.split()[0] for line in listed.stdout.splitlines() if line}
        if name in names and not os.environ.get("REAL_VENDORS_FILES"):
            return f'vendor = "{name}"'
        return f'vendor_file = "{ROOT / "vendors" / name / "definition.toml"}"'

    def write(self, backends):
        text = "allow_inline_secrets = true\n"
        text += f'[server]\nlisten = "127.0.0.1:{self.port}"\ndefault_deadline = "5m"\n[admin]\nlisten = "127.0.0.1:{self.admin}"\n'
        for name, lines in backends.items():
            text += f"[backends.{name}]\n" + "\n".join(lines)
            text += f"\npoll = {POLL}\n"
        self.config.write_text(text)

    def start(self):
        self.processes.start(self.name, self.program, "serve", "--config", self.config)
        until("the gateway is ready", self.is_ready)

    def is_ready(self):
        code = self.processes.running[self.name].poll()
        if code is not None:
            check("the gateway runs", f"exit code {code}", "it does")
            raise Failed
        return request(f"http://127.0.0.1:{self.admin}/readyz")[0] == 200

    def restart(self):
        """Forgets what the gateway has cached."""
        self.processes.end(self.name)
        self.start()

    def call(self, command, *arguments):
        done = subprocess.run(
            [self.program, command, "--json", "--server", self.url, *arguments], capture_output=True, text=True,
            timeout=PATIENCE, check=False, env=self.processes.environment,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def get(self, job, *options):
        """A status, or an object with `error`."""
        return self.call("get", *options, job)[0]

    def reason(self, job):
        return self.get(job).get("error", {}).get("reason", "no error")

    def batch(self, *jobs):
        return self.call("batch", *jobs)

    def watch(self, job):
        return Watch(self, job)

    def checked(self):
        """What `jobwatch check --connect` prints of each backend."""
        done = subprocess.run(
            [self.program, "check", "--config", str(self.config), "--connect"], capture_output=True, text=True,
            timeout=PATIENCE, check=False, env=self.processes.environment,
        )
        lines = [line.split(maxsplit=2) for line in (done.stdout + done.stderr).splitlines()]
        return {words[1]: words[0] for words in lines if len(words) > 2}

    def token_refreshes(self):
        """How often a secret was exchanged for a token."""
        _, text = request(f"http://127.0.0.1:{self.admin}/metrics")
        rows = [line for line in text.decode().splitlines() if line.startswith("jobwatch_token_refreshes_total")]
        return int(sum(float(row.split()[-1]) for row in rows if 'outcome="ok"' in row))

    def stop_watches(self):
        for watch in self.watches:
            if watch.process.poll() is None:
                watch.process.kill()
                watch.process.wait()


@contextmanager
def watched(processes, gateway, *names):
    """Ends what was started; where a check fails, with the last lines of these processes."""
    try:
        yield
    except BaseException:
        for name in (*names, gateway.name):
            print(f"\nThe last lines of {name}:\n{processes.last_lines(name)}")
        raise
    finally:
        gateway.stop_watches()
        processes.stop()
