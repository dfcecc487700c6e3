"""Runs real software that vendors' definitions are written for, with a gateway in front of it, and
compares what the gateway reads with what the software itself says:

    python tests/vendors/real.py PROGRAM [airflow=VENV] [prefect=VENV]

PROGRAM is jobwatch; each VENV has the packages of its requirements file in this folder. Everything
runs on free ports of loopback and ends with this script. It prints a line for each check and a
table of what was watched, and exits with 1 if a check failed. Every wait is bounded.

With REAL_VENDORS_FILES=1 backends name the definitions in vendors/ as files, not those that the
program was built with.
"""

import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway import Failed, check, finish


def version(venv, package):
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    return subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main():
    program = Path(sys.argv[1]).resolve()
    rows, times = [], []
    for argument in sys.argv[2:]:
        name, _, venv = argument.partition("=")
        venv = Path(venv).resolve()
        package = {"airflow": "apache-airflow"}.get(name, name)
        began = time.monotonic()
        print(f"{package} {version(venv, package)}", flush=True)
        with tempfile.TemporaryDirectory(prefix=f"jobwatch-{name}-") as folder:
            try:
                rows += importlib.import_module(f"real_{name}").run(program, venv, Path(folder))
            except (Failed, subprocess.TimeoutExpired) as error:
                check(f"the checks of {name} went on to their end", type(error).__name__, "they did")
        times.append(f"{package} {version(venv, package)}: {time.monotonic() - began:.0f} s")
    print("\n| software | watched | states | vendor's states |\n| --- | --- | --- | --- |")
    for software, title, watch in rows:
        words = list(dict.fromkeys(watch.words))
        print(f"| {software} | {title} | {', '.join(watch.seen)} | {', '.join(words)} |")
    print("\n" + "\n".join(times))
    finish()


main()
