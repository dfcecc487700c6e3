"""The flows that tests/vendors/real_prefect.py runs: serves a deployment of each."""

import os
import signal
import time

from gates import PATIENCE, wait_for
from prefect import flow, serve
from prefect.flow_runs import pause_flow_run
from prefect.runtime import flow_run


@flow
def completes(gate: str = ""):
    if gate:
        wait_for(gate)


@flow
def fails():
    raise RuntimeError("the table is empty")


@flow(retries=1, retry_delay_seconds=1)
def retried():
    if flow_run.run_count == 1:
        raise RuntimeError("not yet")


@flow(retries=1, retry_delay_seconds=3600)
def waits_for_its_retry():
    raise RuntimeError("not yet")


@flow(timeout_seconds=1)
def times_out():
    time.sleep(PATIENCE)


@flow
def crashes():
    os.kill(os.getpid(), signal.SIGKILL)


@flow
def pauses():
    pause_flow_run(timeout=PATIENCE, poll_interval=1)


if __name__ == "__main__":
    flows = [completes, fails, retried, waits_for_its_retry, times_out, crashes, pauses]
    serve(*(each.to_deployment(each.name) for each in flows), pause_on_shutdown=False, limit=10)
