"""Shared by the checks of the Python clients: a line for each check, an exit code, and
the simulators' admin API below /_simulator.
"""

import json
import sys
import urllib.request

failures = 0


def check(title, got, wanted):
    global failures
    good = got == wanted
    failures += not good
    print(f"{'ok  ' if good else 'FAIL'} {title}", flush=True)
    if not good:
        print(f"     got    {got!r}\n     wanted {wanted!r}", flush=True)


def finish():
    """Prints the number of failures and exits with the exit code."""
    print(f"{failures} failed" if failures else "all good", flush=True)
    sys.exit(1 if failures else 0)


def simulator(url, path, body=None, method="POST"):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{url}/_simulator/{path}", data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        text = response.read()
    return json.loads(text) if text else None
