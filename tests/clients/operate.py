"""Runs the whole set-up as an operator would, without containers, and checks what it shows:

    python tests/clients/operate.py PROGRAM TOOLS

PROGRAM is jobwatch with its simulators, TOOLS the directory that `make tools` fills. Every
expression of the dashboard has to return data, alerts have to fire and to resolve, and spans
have to arrive. Prints a line for each check and a table of times, and exits with 1 if a check
failed. Every wait is bounded.
"""

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from checks import check, finish, simulator
from installation import ROOT, VENDORS, Caller, Installation
from otlp_collector import Collector

# Longest wait for anything.
PATIENCE = 60
# This vendor dies.
MORTAL = "claret"
WATCHED = [vendor for vendor in VENDORS if vendor != MORTAL]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "1122334455667788"


class Failed(Exception):
    pass


def until(title, condition):
    """Waits for a condition, and returns the seconds that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            check(title, f"not within {PATIENCE} s", "in time")
            raise Failed
        time.sleep(0.1)
    check(title, True, True)
    return time.monotonic() - began


def expressions():
    """Each expression of the dashboard with the title of its panel."""
    dashboard = json.loads((ROOT / "deploy/grafana/jobwatch.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "15s")
            yield panel["title"], re.sub(r"\$(instance|backend)\b", ".*", expression)


def url(setup, vendor):
    return f"http://127.0.0.1:{setup.ports[vendor]}"


def call(setup, jobs, stop, codes):
    """Calls all backends, about unknown jobs too, until `stop`."""
    caller = Caller(setup)
    while not stop.wait(0.2):
        for vendor, job in jobs.items():
            codes.append(caller.get(vendor, job))
        codes.append(caller.get("immuta", "987654321"))


def start(setup):
    for vendor in VENDORS:
        setup.start_vendor(vendor)
    for vendor in VENDORS:
        until(f"{vendor} runs", lambda vendor=vendor: "--help lists all faults" in setup.output(vendor))
        setup.note_backend(vendor)
    setup.write_config()
    checked = setup.run("check", "--config", setup.config, "--connect")
    check("the configuration is valid and the vendors take the credentials", (checked.returncode, checked.stderr), (0, ""))
    setup.start_gateway()
    until("the gateway is ready", lambda: setup.http("admin", "/readyz"))
    health = setup.run("healthcheck", "--server", f"https://localhost:{setup.ports['gateway']}", "--ca", setup.certificate)
    check("the health check passes over TLS", health.returncode, 0)
    setup.start_replica()
    until("the replica owns its backend", lambda: b'role="owner"} 1' in (setup.http("replica-admin", "/metrics") or b""))
    listed = setup.run("backends", "--server", f"http://127.0.0.1:{setup.ports['replica']}")
    check("`jobwatch backends` says so", "OWNER" in listed.stdout, True)
    setup.start_prometheus()
    until("Prometheus scrapes both gateways", lambda: len(setup.query('up{job="jobwatch"} == 1')) == 2)


def watch(setup):
    """Starts a job at each vendor, and watches those that live."""
    jobs = {vendor: simulator(url(setup, vendor), "jobs", {"running_for_ms": 3600000})["id"] for vendor in VENDORS}
    gateway = ["--server", f"https://localhost:{setup.ports['gateway']}", "--ca", setup.certificate]
    for vendor in WATCHED:
        setup.start(f"watch-{vendor}", setup.program, "watch", "--json", *gateway, f"{vendor}/{jobs[vendor]}")
    return jobs


def dashboard(setup):
    missing = []

    def all_return_data():
        missing[:] = [(title, expression) for title, expression in expressions() if not setup.query(expression)]
        return not missing

    try:
        return until("every expression of the dashboard returns data", all_return_data)
    except Failed:
        for title, expression in missing:
            print(f"     no data: {title}: {expression}")
        raise


def variables(setup):
    for metric, label in [("jobwatch_ready", "instance"), ("jobwatch_backend_up", "backend")]:
        values = setup.prometheus(f"label/{label}/values", **{"match[]": metric})
        wanted = sorted(VENDORS) if label == "backend" else [f"127.0.0.1:{setup.ports[name]}" for name in ("admin", "replica-admin")]
        check(f"the dashboard's variable {label} has its values", sorted(values), sorted(wanted))


def metrics(setup, promtool):
    text = setup.http("admin", "/metrics")
    linted = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    check("promtool has nothing to say about /metrics", (linted.returncode, linted.stdout + linted.stderr), (0, b""))


def spans(setup, collector):
    Caller(setup).get("immuta", "1", f"00-{TRACE}-{SPAN}-01")
    calls = lambda: [
        span for span in collector.spans("jobwatch.v1.JobStatusService/GetJobStatus")
        if (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    ]
    took = until("the span of a call arrives as a child of its caller's", calls)
    number = calls()[0].span_id
    until(
        "the span of its wait arrives",
        lambda: any(span.parent_span_id == number for span in collector.spans("queue wait")),
    )
    until(
        "the span of the poll that served it arrives, with a link to it",
        lambda: any(link.span_id == number for span in collector.spans("poll") for link in span.links),
    )
    until("exported spans are counted", lambda: sum(setup.query('jobwatch_spans_total{outcome="exported"}')) > 0)
    return took


def fires(setup, name, backend=""):
    return until(f"{name} fires", lambda: (name, backend) in setup.alerts())


def resolves(setup, name, backend=""):
    return until(f"{name} resolves", lambda: (name, backend) not in setup.alerts())


def vendor_dies(setup, jobs):
    setup.end(MORTAL, signal.SIGKILL)
    fired = fires(setup, "JobwatchBackendDown", MORTAL)
    down = {backend for name, backend in setup.alerts() if name == "JobwatchBackendDown"}
    check("no other backend is reported", down, {MORTAL})
    check("the gateway stays ready", setup.http("admin", "/readyz") is not None, True)
    setup.start_vendor(MORTAL)
    resolved = resolves(setup, "JobwatchBackendDown", MORTAL)
    simulator(url(setup, MORTAL), "jobs", {"id": jobs[MORTAL], "running_for_ms": 3600000})
    return fired, resolved


def gateway_dies(setup):
    setup.end("gateway", signal.SIGKILL)
    fired = fires(setup, "JobwatchDown")
    setup.start_gateway()
    return fired, resolves(setup, "JobwatchDown")


def bad_configuration(setup):
    good = setup.config.read_text()
    setup.config.write_text(good + "\n[backends.other]\nvendor = \"nobody\"\n")
    setup.send_signal("gateway", signal.SIGHUP)
    fired = fires(setup, "JobwatchReloadFailed")
    setup.config.write_text(good)
    setup.send_signal("gateway", signal.SIGHUP)
    return fired, resolves(setup, "JobwatchReloadFailed")


def collector_refuses(setup, collector):
    collector.refuses = True
    fired = fires(setup, "JobwatchSpansDropped")
    collector.refuses = False
    return fired, resolves(setup, "JobwatchSpansDropped")


def jobs_end(setup, jobs):
    for vendor in WATCHED:
        simulator(url(setup, vendor), f"jobs/{jobs[vendor]}/finish")
    for vendor in WATCHED:
        code = setup.wait(f"watch-{vendor}")
        check(f"the watch of {vendor} saw the end of its job, through the restart of the gateway", code, 0)


def table(rows):
    print("\n| event | alert fires after | resolved after |\n| --- | --- | --- |")
    for event, (fired, resolved) in rows.items():
        print(f"| {event} | {fired:.0f} s | {resolved:.0f} s |")


def operate(setup, promtool):
    began = time.monotonic()
    start(setup)
    jobs = watch(setup)
    stop, codes = threading.Event(), []
    caller = threading.Thread(target=call, args=(setup, jobs, stop, codes), daemon=True)
    caller.start()
    try:
        with_data = dashboard(setup)
        variables(setup)
        metrics(setup, promtool)
        arrived = spans(setup, setup.collector)
        until("no alert fires while everything works", lambda: not setup.alerts())
        rows = {
            "a vendor is killed, and started again": vendor_dies(setup, jobs),
            "the gateway is killed, and started again": gateway_dies(setup),
            "a reload with a bad configuration, then a good one": bad_configuration(setup),
            "the collector refuses spans, then takes them": collector_refuses(setup, setup.collector),
        }
        until("no alert fires any more", lambda: not setup.alerts())
        jobs_end(setup, jobs)
    finally:
        stop.set()
        caller.join(PATIENCE)
    check("callers received statuses, and errors for what failed", {"OK", "NOT_FOUND", "UNAVAILABLE"} <= set(codes), True)
    check("the gateway drains and exits with 0", setup.end("gateway"), 0)
    table(rows)
    count = len(list(expressions()))
    print(f"\n{count} expressions with data after {with_data:.0f} s; {len(codes)} calls, {setup.collector.count()} spans, ", end="")
    print(f"the first after {arrived:.1f} s; {time.monotonic() - began:.0f} s in all")


def main():
    program, tools = (Path(argument).resolve() for argument in sys.argv[1:3])
    collector = Collector()
    with tempfile.TemporaryDirectory(prefix="jobwatch-operate-") as folder:
        prometheus, nats_server = tools / "debian/usr/bin/prometheus", tools / "python/bin/nats-server"
        setup = Installation(program, prometheus, nats_server, folder, collector)
        try:
            operate(setup, tools / "debian/usr/bin/promtool")
        except Failed:
            print("The last lines of the gateway's log:")
            print("\n".join(setup.log("gateway").splitlines()[-20:]))
        finally:
            setup.stop()
            collector.stop()
    finish()


main()
