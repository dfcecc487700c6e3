"""The DAGs that tests/vendors/real_airflow.py runs. Tasks wait for files that the check writes, so
that nothing depends on how fast the machine is.
"""

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

GATES = Path(os.environ["REAL_VENDORS_GATES"])
PATIENCE = 600


def wait_for(gate):
    end = time.monotonic() + PATIENCE
    while not (GATES / gate).exists():
        if time.monotonic() > end:
            raise TimeoutError(gate)
        time.sleep(0.1)


@task
def wait():
    """Ends when the gate that the run's configuration names is open, or at once."""
    gate = get_current_context()["params"].get("gate")
    if gate:
        wait_for(gate)


@task
def fail():
    raise RuntimeError("the table is empty")


@task(retries=1, retry_delay=timedelta(seconds=1))
def fail_once():
    wait_for("retried")
    if get_current_context()["ti"].try_number == 1:
        raise RuntimeError("not yet")


@dag(schedule=None, is_paused_upon_creation=False)
def succeeds():
    wait()


@dag(schedule=None, is_paused_upon_creation=False)
def fails():
    fail()


@dag(schedule=None, is_paused_upon_creation=False)
def retried():
    fail_once()


@dag(schedule=None, is_paused_upon_creation=True)
def paused():
    wait()


@dag(schedule="@once", start_date=datetime(2026, 1, 2), is_paused_upon_creation=False)
def scheduled():
    wait()


succeeds()
fails()
retried()
paused()
scheduled()
