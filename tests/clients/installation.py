"""The set-up of deploy/compose as processes on loopback: simulated vendors, a gateway with TLS,
another one that shares its work over NATS, Prometheus with the alert rules of deploy/prometheus,
and a collector of traces.

Configuration files are copies of those in deploy/, with other addresses. The rules are a copy
with shorter times: see `quick`.
"""

import itertools
import json
import re
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = Path(__file__).resolve().parents[2]
VENDORS = ["immuta", "kinetica", "claret", "datasaur"]
# The ports of the gateway that shares its work, and of its NATS server.
REPLICA = ["replica", "replica-admin", "nats"]
SERVICE = "jobwatch.v1.JobStatusService"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def replaced(text, *pairs):
    """`text` with each first of a pair replaced; it has to be there."""
    for pattern, replacement in pairs:
        text, count = re.subn(pattern, lambda _, to=replacement: to, text)
        if count == 0:
            raise ValueError(f"nothing matches {pattern}")
    return text


def quick(rules):
    """Alert rules that fire after two seconds, and look 15 seconds back."""
    return replaced(rules, (r"\bfor: \d+[smhd]", "for: 2s"), (r"\[\d+[smhd]\]", "[15s]"), (r"offset \d+[smhd]", "offset 15s"))


class Installation:
    def __init__(self, program, prometheus, nats_server, folder, collector):
        self.program, self.prometheus_program, self.nats_server = program, prometheus, nats_server
        self.folder = Path(folder)
        self.ports = {name: free_port() for name in [*VENDORS, "gateway", "admin", "prometheus", *REPLICA]}
        self.processes = {}
        self.config = self.folder / "jobwatch.toml"
        self.certificate = self.folder / "server.pem"
        self.backends = ""
        self.collector = collector

    # Processes.

    def start(self, name, *command):
        with open(self.folder / f"{name}.log", "ab") as log:
            out = open(self.folder / f"{name}.out", "wb")
            self.processes[name] = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=log, cwd=self.folder
            )
            out.close()

    def send_signal(self, name, number):
        self.processes[name].send_signal(number)

    def end(self, name, number=signal.SIGTERM):
        """Ends a process, and returns its exit code."""
        self.send_signal(name, number)
        return self.wait(name)

    def wait(self, name):
        try:
            return self.processes[name].wait(40)
        finally:
            process = self.processes.pop(name)
            if process.poll() is None:
                process.kill()

    def stop(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    def output(self, name):
        return (self.folder / f"{name}.out").read_text()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    # What the operator does.

    def run(self, *arguments):
        return subprocess.run(
            [str(self.program), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
            cwd=self.folder,
        )

    def start_vendor(self, vendor):
        self.start(vendor, self.program, "simulate", vendor, "--listen", f"127.0.0.1:{self.ports[vendor]}")

    def write_config(self):
        """The gateway's configuration: that of deploy/compose, and a backend for each vendor."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=localhost"]
            + ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
            + ["-keyout", self.folder / "server.key", "-out", self.certificate],
            check=True, capture_output=True, timeout=60,
        )
        text = (ROOT / "deploy/compose/jobwatch.toml").read_text()
        text = replaced(
            text.split("[backends.", maxsplit=1)[0],
            (r'"0\.0\.0\.0:50051"', f'"127.0.0.1:{self.ports["gateway"]}"'),
            (r"allow_plaintext = true", 'tls = { cert = "server.pem", key = "server.key" }'),
            (r'"0\.0\.0\.0:9090"', f'"127.0.0.1:{self.ports["admin"]}"'),
            (r"allow_remote = true", "allow_remote = false"),
        )
        text += f'[traces]\nendpoint = "http://127.0.0.1:{self.collector.port}"\nprotocol = "grpc"\n'
        self.config.write_text(f"allow_inline_secrets = true\n\n{text}\n{self.backends}")

    def note_backend(self, vendor):
        """Takes the configuration of a backend from what its simulator prints."""
        _, text = self.output(vendor).split("  [backends.", 1)
        lines = itertools.takewhile(lambda line: not line or line.startswith("  "), f"  [backends.{text}".splitlines())
        self.backends += "\n".join(line.strip() for line in lines).strip() + '\nmax_backoff = "1s"\n\n'

    def start_gateway(self):
        self.start("gateway", self.program, "serve", "--config", self.config)

    def start_replica(self):
        """A NATS server with the account of deploy/, and a gateway of deploy/compose/cluster.yaml."""
        nats = (ROOT / "deploy/kubernetes/cluster/nats.conf").read_text()
        nats = replaced(
            re.sub(r"(?m)^(cluster \{\n(?:.*\n)*?\}|http: .*)\n", "", nats),
            (r"\$NATS_SERVER_NAME", "nats-0"),
            (r"\$JOBWATCH_NATS_PASSWORD", "simulated"),
            (r'"0\.0\.0\.0:4222"', f'"127.0.0.1:{self.ports["nats"]}"'),
            (r'"/data"', f'"{self.folder / "nats"}"'),
        )
        (self.folder / "nats.conf").write_text(nats)
        self.start("nats", self.nats_server, "-c", "nats.conf")
        text = replaced(
            (ROOT / "deploy/compose/cluster.toml").read_text(),
            (r'"0\.0\.0\.0:50051"', f'"127.0.0.1:{self.ports["replica"]}"'),
            (r'"0\.0\.0\.0:9090"', f'"127.0.0.1:{self.ports["replica-admin"]}"'),
            (r"allow_remote = true", "allow_remote = false"),
            (r"(?m)^nats = .*$", f'nats = ["nats://127.0.0.1:{self.ports["nats"]}"]\nmember = "replica"\nlease = "3s"'),
            (r'\{ env = "JOBWATCH_NATS_PASSWORD" \}', '"simulated"'),
            (r"http://vendor:8090", f"http://127.0.0.1:{self.ports['immuta']}"),
            (r'\{ file = "/run/secrets/immuta-api-key" \}', f'{{ file = "{ROOT}/deploy/compose/simulator-api-key" }}'),
        )
        (self.folder / "replica.toml").write_text(f"allow_inline_secrets = true\n{text}")
        self.start("replica", self.program, "serve", "--config", "replica.toml")

    def start_prometheus(self):
        (self.folder / "alerts.yml").write_text(quick((ROOT / "deploy/prometheus/alerts.yml").read_text()))
        config = replaced(
            (ROOT / "deploy/compose/prometheus.yml").read_text(),
            (r"/etc/prometheus/alerts.yml", str(self.folder / "alerts.yml")),
            (r'"jobwatch:9090"', f'"127.0.0.1:{self.ports["admin"]}", "127.0.0.1:{self.ports["replica-admin"]}"'),
            (r"scrape_interval: \w+", "scrape_interval: 1s"),
            (r"evaluation_interval: \w+", "evaluation_interval: 1s"),
        )
        (self.folder / "prometheus.yml").write_text(config)
        self.start(
            "prometheus", self.prometheus_program, "--config.file=prometheus.yml", "--storage.tsdb.path=prometheus",
            f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
        )

    # What it sees.

    def http(self, name, path):
        """The body of a response, or `None` if there is none yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=10) as response:
                return response.read()
        except OSError:
            return None

    def prometheus(self, path, **parameters):
        body = self.http("prometheus", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(body)["data"] if body else None

    def query(self, expression):
        """The values of an expression, without those that are not a number."""
        data = self.prometheus("query", query=expression)
        values = [float(series["value"][1]) for series in data["result"]] if data else []
        return [value for value in values if value == value]

    def alerts(self, state="firing"):
        """The alerts in this state, with their backends."""
        data = self.prometheus("alerts") or {"alerts": []}
        found = [alert["labels"] for alert in data["alerts"] if alert["state"] == state]
        return {(labels["alertname"], labels.get("backend", "")) for labels in found}


class Caller:
    """Calls the gateway as the server describes itself."""

    def __init__(self, installation):
        credentials = grpc.ssl_channel_credentials(installation.certificate.read_bytes())
        self.channel = grpc.secure_channel(f"localhost:{installation.ports['gateway']}", credentials)
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        method = pool.FindServiceByName(SERVICE).methods_by_name["GetJobStatus"]
        self.request, response = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
        self.call = self.channel.unary_unary(
            f"/{SERVICE}/GetJobStatus",
            request_serializer=self.request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def get(self, backend, job, traceparent=None):
        """The name of the code that a GetJobStatus ends with."""
        request = json_format.ParseDict({"job": {"backend": backend, "job_id": job}}, self.request())
        metadata = [("traceparent", traceparent)] if traceparent else []
        try:
            self.call(request, timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"
