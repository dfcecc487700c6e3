"""The DAGs that tests/vendors/real_airflow.py runs."""

from datetime import datetime, timedelta

from airflow.sdk import dag, get_current_context, task
from gates import wait_for


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
