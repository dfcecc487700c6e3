"""Checks the Kinetica simulator with Kinetica's own Python client.

    cargo run -- simulate kinetica                # prints its URL
    python tests/clients/kinetica_gpudb.py URL

Prints a line for each check and exits with 1 if any failed. Fail-over is always
off: with two clusters this version of the client can loop for ever.
"""

import json
import sys

import gpudb

from checks import check, finish
from checks import simulator as admin

USER, PASSWORD = "admin", "simulated:kinetica"
ENCODINGS = ["JSON", "BINARY", "SNAPPY"]
RESULT = '{"table_name":"t","value":"\\"q\\" \\u00e9","rows":9007199254740993,"info":{}}'
EVERY_BYTE = bytes(range(256))


def raises(title, kind, text, call):
    try:
        got = call()
    except kind as error:
        check(title, text in str(error), True)
    else:
        check(title, got, kind.__name__)


def connect(url, encoding, **credentials):
    options = gpudb.GPUdb.Options()
    options.encoding = encoding
    options.disable_failover = True
    options.disable_auto_discovery = True
    for name, value in (credentials or {"username": USER, "password": PASSWORD}).items():
        setattr(options, name, value)
    return gpudb.GPUdb(host=url, options=options)


def status(response):
    return response["status_info"]["status"], response["status_info"]["message"]


def as_bytes(response):
    """What a client makes of `job_response`: bytes, or in JSON one code point a byte."""
    return response if isinstance(response, bytes) else response.encode("latin-1")


def check_jobs(url, encoding):
    database = connect(url, encoding)

    job = admin(url, "jobs", {"id": "4611686018427387907", "end": {"success": {"json": json.loads(RESULT)}}})
    response = database.get_job(4611686018427387907)
    check(f"{encoding}: a finished job is OK", status(response), ("OK", ""))
    check(f"{encoding}: its endpoint", response["endpoint"], "/alter/table")
    check(f"{encoding}: its status", response["job_status"], "DONE")
    check(f"{encoding}: it runs no more", response["running"], False)
    check(f"{encoding}: its progress", response["progress"], 100)
    check(f"{encoding}: it was successful", response["successful"], True)
    check(f"{encoding}: its response is in JSON", response["response_encoding"], "json")
    check(f"{encoding}: its response", json.loads(response["job_response_str"]), json.loads(RESULT))
    check(f"{encoding}: it has no status text", response["status_map"], {})
    check(f"{encoding}: its tag", response["info"], {"job_tag": job["tag"]})

    job = admin(url, "jobs", {"end": {"success": {"binary": list(EVERY_BYTE)}}})
    response = database.get_job(int(job["id"]))
    check(f"{encoding}: a binary response has its encoding", response["response_encoding"], "binary")
    check(f"{encoding}: every byte of it survives", as_bytes(response["job_response"]), EVERY_BYTE)

    job = admin(url, "jobs", {"running_for_ms": 3600000, "tag": f"tag-{encoding}"})
    response = database.get_job(int(job["id"]))
    check(f"{encoding}: a job runs", (response["job_status"], response["running"]), ("RUNNING", True))
    response = database.get_job(1, {"job_tag": f"tag-{encoding}"})
    check(f"{encoding}: a tag finds it", response["info"], {"job_tag": f"tag-{encoding}"})
    shown = database.admin_show_jobs()
    check(f"{encoding}: it is listed", int(job["id"]) in shown["job_id"], True)
    check(f"{encoding}: a finished one is hidden", 4611686018427387907 in shown["job_id"], False)
    shown = database.admin_show_jobs({"show_async_jobs": "true"})
    check(f"{encoding}: a finished one is shown on demand", 4611686018427387907 in shown["job_id"], True)
    altered = database.admin_alter_jobs([int(job["id"])], "cancel")
    check(f"{encoding}: it can be cancelled", altered["status"], ["CANCELLED"])
    response = database.get_job(int(job["id"]))
    check(f"{encoding}: then it is CANCELLED and was not successful",
          (response["job_status"], response["successful"]), ("CANCELLED", False))

    job = admin(url, "jobs", {"end": {"failure": {"message": "Object 't' not found (S/SDc:1513)"}}})
    response = database.get_job(int(job["id"]))
    check(f"{encoding}: a failed job is a valid response", status(response), ("OK", ""))
    check(f"{encoding}: with its message", (response["job_status"], response["successful"], response["status_map"]),
          ("ERROR", False, {"error_message": "Object 't' not found (S/SDc:1513)"}))

    binary = encoding != "JSON"
    created = database.create_job(
        endpoint="/alter/table", request_encoding="binary" if binary else "json",
        data=EVERY_BYTE if binary else b"", data_str="" if binary else RESULT,
        options={"job_tag": f"created-{encoding}"},
    )
    check(f"{encoding}: a job can be created", status(created), ("OK", ""))
    check(f"{encoding}: with its tag", created["info"]["job_tag"], f"created-{encoding}")
    check(f"{encoding}: its id is beyond 2^53", created["job_id"] > 2**53, True)
    admin(url, f"jobs/{created['job_id']}/finish")
    by_id = database.get_job(created["job_id"], {"job_tag": f"created-{encoding}"})
    by_tag = database.get_job(0, {"job_tag": f"created-{encoding}"})
    check(f"{encoding}: id and tag find the same", by_id["info"], by_tag["info"])
    got = as_bytes(by_id["job_response"]) if binary else by_id["job_response_str"]
    check(f"{encoding}: its data comes back", got, EVERY_BYTE if binary else RESULT)


def check_failures(url, encoding):
    database = connect(url, encoding)
    response = database.get_job(999)
    check(f"{encoding}: an unknown job is an error", status(response),
          ("ERROR", "Job id 999 not found (Simulator/J:404)"))
    response = database.admin_alter_jobs([999], "cancel")
    check(f"{encoding}: an unknown job can't be cancelled", response["status"], ["NOT_FOUND"])
    response = database.create_job(endpoint="/x", request_encoding="xml", data=b"", data_str="", options={})
    check(f"{encoding}: an unknown encoding is an error", status(response)[0], "ERROR")

    admin(url, "faults", {"effect": {"refuse": "Access denied; ok"}, "times": 1})
    check(f"{encoding}: access denied is an error", status(database.get_job(1)), ("ERROR", "Access denied; ok"))
    for message in ["System shutting down", "Unavailable: Draining HA queue"]:
        admin(url, "faults", {"effect": {"refuse": message}, "path": "/get/job"})
        raises(f"{encoding}: {message!r} is an outage", gpudb.GPUdbException, "", lambda: database.get_job(1))
        admin(url, "faults", method="DELETE")
    admin(url, "faults", {"effect": {"status": {"code": 500}}, "path": "/get/job"})
    raises(f"{encoding}: 500 is an outage", gpudb.GPUdbException, "500", lambda: database.get_job(1))
    admin(url, "faults", method="DELETE")

    raises(f"{encoding}: a bad password is refused", gpudb.GPUdbException, "nauthorized",
           lambda: connect(url, encoding, username=USER, password="wrong"))
    token = admin(url, "tokens")["token"]
    response = connect(url, encoding, oauth_token=token).get_job(999)
    check(f"{encoding}: a bearer token passes", status(response)[0], "ERROR")
    raises(f"{encoding}: another is refused", gpudb.GPUdbException, "nauthorized",
           lambda: connect(url, encoding, oauth_token="undefined"))
    prefixed = connect(f"{url}/gpudb-0", encoding)
    check(f"{encoding}: a path prefix is served", status(prefixed.get_job(999))[0], "ERROR")


def main(url):
    version = connect(url, "JSON").show_system_properties()["property_map"]["version.gpudb_core_version"]
    check("the client connects", version.startswith("7.2."), True)
    for encoding in ENCODINGS:
        check_jobs(url, encoding)
        check_failures(url, encoding)
    finish()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
