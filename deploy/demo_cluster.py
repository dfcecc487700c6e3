#!/usr/bin/env python3
"""Three gateways, three NATS servers and a simulated vendor on loopback.

Watches 30 jobs through each gateway and shows, once a second, how many requests the
vendor received and who owns the backend. Lines of input: `kill 1` ends gateway 1 at once,
`start 1` starts it again, `nats` stops all NATS servers or starts them again, `quit` ends
everything. `--seconds N` ends it after that time, with one kill and one start in it.
"""

import argparse
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = 30
INTERVAL = 2


def free_port():
    """A port below those that the system gives to clients."""
    for port in range(20000 + os.getpid() % 8000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in free_port.taken:
            free_port.taken.add(port)
            return port
    raise SystemExit("no free port")


free_port.taken = set()


class Demo:
    def __init__(self, program, nats_server, folder):
        self.program, self.nats_server, self.folder = program, nats_server, Path(folder)
        self.children = {}
        self.logs = {}
        self.nats = [(free_port(), free_port()) for _ in range(3)]
        self.gateways = [(free_port(), free_port()) for _ in range(3)]
        self.vendor = free_port()

    def spawn(self, name, *command):
        self.logs[name] = self.folder / f"{name}.log"
        with open(self.logs[name], "ab") as log:
            self.children[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, name, how=signal.SIGKILL):
        child = self.children.pop(name, None)
        if child:
            child.send_signal(how)
            child.wait()

    def start_nats(self):
        routes = ", ".join(f'"nats://127.0.0.1:{route}"' for _, route in self.nats)
        for number, (port, route) in enumerate(self.nats, 1):
            config = self.folder / f"nats-{number}.conf"
            config.write_text(
                f"server_name: nats-{number}\nlisten: 127.0.0.1:{port}\n"
                f'jetstream {{ store_dir: "{self.folder}/store-{number}" }}\n'
                f"cluster {{ name: demo, listen: 127.0.0.1:{route}, routes: [{routes}] }}\n"
            )
            self.spawn(f"nats-{number}", self.nats_server, "-c", str(config))

    def start_gateway(self, number):
        port, admin = self.gateways[number - 1]
        servers = ", ".join(f'"nats://127.0.0.1:{port}"' for port, _ in self.nats)
        config = self.folder / f"gateway-{number}.toml"
        config.write_text(
            "allow_inline_secrets = true\n"
            f'[server]\nlisten = "127.0.0.1:{port}"\n[admin]\nlisten = "127.0.0.1:{admin}"\n'
            f'[cluster]\nnats = [{servers}]\nname = "demo"\nreplicas = 3\nmember = "gateway-{number}"\n'
            f'lease = "5s"\n[backends.immuta]\nvendor = "immuta"\nbase_url = "http://127.0.0.1:{self.vendor}"\n'
            'credentials = { api_key = "5f0c9e1a7b2d4e8fa3c61d90" }\n'
            f'[backends.immuta.poll]\nmin_interval = "{INTERVAL}s"\nmax_interval = "{INTERVAL}s"\n'
        )
        self.spawn(f"gateway-{number}", self.program, "serve", "--config", str(config))

    def call(self, url, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=2) as response:
            return response.read().decode()

    def vendor_call(self, path, body=None):
        return self.call(f"http://127.0.0.1:{self.vendor}/_simulator/{path}", body)

    def wait_for(self, what, condition, patience=120):
        for _ in range(patience * 10):
            try:
                if condition():
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"{what} did not come; see the logs in {self.folder}")

    def owner(self):
        """What each gateway's log says of the owner, by gateway."""
        owners = {}
        for number in range(1, 4):
            name = f"gateway-{number}"
            if name not in self.children:
                owners[name] = "down"
                continue
            owners[name] = "?"
            for line in self.logs[name].read_text(errors="replace").splitlines():
                if "jobwatch::cluster::election" not in line:
                    continue
                other = re.search(r'owner="([^"]+)"', line)
                owners[name] = (
                    name if "this replica owns" in line else other.group(1) if other else "isolated"
                )
        return owners

    def watch(self, number):
        port = self.gateways[number - 1][0]
        ids = [f"immuta/{job}" for job in self.jobs]
        name = f"watch-{number}"
        self.spawn(name, self.program, "watch", "--server", f"http://127.0.0.1:{port}", *ids)

    def requests(self):
        """How many requests the vendor has received."""
        calls = json.loads(self.vendor_call("calls"))
        return calls[-1]["number"] if calls else 0

    def start(self):
        print("starting a vendor, three NATS servers and three gateways ...", flush=True)
        self.spawn("vendor", self.program, "simulate", "immuta", "--listen", f"127.0.0.1:{self.vendor}")
        self.wait_for("the vendor", lambda: self.vendor_call("calls"))
        self.jobs = []
        for _ in range(JOBS):
            job = json.loads(self.vendor_call("jobs", {"running_for_ms": 24 * 3600 * 1000}))
            self.jobs.append(job["id"])
        self.start_nats()
        for number in range(1, 4):
            self.start_gateway(number)
        owned = lambda: len(set(self.owner().values())) == 1 and "?" not in self.owner().values()
        self.wait_for("an owner", owned)
        for number in range(1, 4):
            self.watch(number)

    def obey(self, line):
        words = line.split()
        if words[:1] == ["quit"]:
            return False
        if len(words) == 2 and words[0] in ("kill", "start") and words[1] in ("1", "2", "3"):
            name = f"gateway-{words[1]}"
            if words[0] == "kill":
                self.end(name)
            elif name not in self.children:
                self.start_gateway(int(words[1]))
        elif words == ["nats"]:
            if "nats-1" in self.children:
                for number in range(1, 4):
                    self.end(f"nats-{number}")
            else:
                self.start_nats()
        elif words:
            print("write: kill N, start N, nats or quit", flush=True)
        return True

    def run(self, lines, seconds):
        print(f"{JOBS} jobs are watched through each gateway, polled every {INTERVAL} s.")
        print("write: kill N, start N, nats or quit\n")
        print(f"{'second':>6}  {'requests':>8}  {'gateway-1':>10}  {'gateway-2':>10}  {'gateway-3':>10}   (who owns the backend)")
        before = self.requests()
        script = {}
        second = 0
        while seconds is None or second < seconds:
            time.sleep(1)
            second += 1
            now = self.requests()
            owners = self.owner()
            cells = "  ".join(f"{owners[f'gateway-{number}']:>10}" for number in range(1, 4))
            print(f"{second:>6}  {now - before:>8}  {cells}", flush=True)
            before = now
            if seconds is not None and second == seconds // 3:
                owner = max(set(owners.values()), key=list(owners.values()).count)
                script["killed"] = owner[-1]
                print(f"kill {owner[-1]}")
                self.obey(f"kill {owner[-1]}")
            if seconds is not None and second == 2 * seconds // 3:
                print(f"start {script['killed']}")
                self.obey(f"start {script['killed']}")
            while not lines.empty():
                if not self.obey(lines.get()):
                    return

    def stop(self):
        for name in list(self.children):
            self.end(name, signal.SIGTERM if name.startswith("gateway") else signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/debug/jobwatch", help="the gateway")
    parser.add_argument("--nats-server", default=ROOT / ".tools/python/bin/nats-server")
    parser.add_argument("--seconds", type=int, help="end after this time")
    args = parser.parse_args()
    lines = queue.Queue()

    def read():
        for line in sys.stdin:
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(str(args.program), str(args.nats_server), folder)
        try:
            demo.start()
            demo.run(lines, args.seconds)
        except KeyboardInterrupt:
            pass
        finally:
            demo.stop()


if __name__ == "__main__":
    main()
