"""The flows that tests/vendors/real_prefect.py runs: serves a deployment of each. They wait for files
that the check writes, so that nothing depends on how fast the machine is.
"""

import os
import signal
import time
from pathlib import Path

from prefect import flow, serve
from prefect.flow_runs import pause_flow_run
from prefect.runtime import flow_run

GATES = Path(os.environ["REAL_VENDORS_GATES"])
PATIENCE = 600


def wait_for(gate):
    end = time.monotonic() + PATIENCE
    while not (GATES / gate).exists():
        if time.monotonic() > end:
            raise TimeoutError(gate)
        time.sleep(0.1)


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
