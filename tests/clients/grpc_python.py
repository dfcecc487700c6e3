"""Checks a gateway with grpcio, from server reflection alone: no generated code.

    python tests/clients/grpc_python.py GATEWAY immuta=URL kinetica=URL claret=URL datasaur=URL

The URLs are those of the simulators behind the gateway; the jobs are started and
moved through them. Prints a line for each check and exits with 1 if any failed.
"""

import json
import sys
from base64 import b64encode
from contextlib import contextmanager

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from checks import check, finish, simulator

SERVICE = "jobwatch.v1.JobStatusService"
# Longest wait for anything: what takes as long is broken.
PATIENCE = 20
TERMINAL = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
EVERY_BYTE = bytes(range(256))


class Gateway:
    """A stub for each method of the service, as the server describes it."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.described = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.described)
        for method in self.pool.FindServiceByName(SERVICE).methods:
            setattr(self, method.name, self.stub(method))

    def stub(self, method):
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        request, response = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
        call = kinds[method.client_streaming, method.server_streaming](
            f"/{SERVICE}/{method.name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return lambda timeout=PATIENCE, **fields: call(json_format.ParseDict(fields, request()), timeout=timeout)

    def status(self, backend, job_id, **fields):
        """A GetJobStatus as a dict, without the time that can't be known."""
        response = as_dict(self.GetJobStatus(job={"backend": backend, "job_id": job_id}, **fields))
        return timeless(response["status"])


def as_dict(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def timeless(status):
    status.pop("observe_time")
    return status


def events(call):
    """The events of a watch: their name and their content."""
    for event in call:
        name = event.WhichOneof("event")
        yield name, as_dict(getattr(event, name)), event.resume_token


def details(status):
    """The rich details of a google.rpc.Status, by the name of their type."""
    found = {}
    for detail in status.details:
        name = detail.type_url.rsplit(".", 1)[1]
        found[name] = getattr(error_details_pb2, name).FromString(detail.value)
    return found


@contextmanager
def fails(title, code):
    """Expects the call within to fail; its rich details are in what it yields."""
    got = {}
    try:
        yield got
        check(title, "OK", code.name)
    except grpc.RpcError as error:
        check(title, error.code().name, code.name)
        rich = rpc_status.from_call(error)
        if rich:
            got.update(details(rich))


def check_reflection(gateway):
    check("reflection lists the services", sorted(gateway.described.get_services()), [
        "google.longrunning.Operations",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE,
    ])
    known = gateway.pool.FindMessageTypeByName("google.rpc.ErrorInfo").fields_by_name
    check("reflection describes the details of errors", sorted(known), ["domain", "metadata", "reason"])


def check_immuta(gateway, url):
    output = '{"rows": 9007199254740993, "ok":true}'
    job = simulator(url, "jobs", {"end": {"success": {"json": json.loads(output)}}})["id"]
    wanted = {
        "job": {"backend": "immuta", "job_id": job},
        "state": "JOB_STATE_SUCCEEDED",
        "vendor_state": "completed",
        "terminal": True,
    }
    check("immuta: a basic view", gateway.status("immuta", job, view="JOB_STATUS_VIEW_BASIC"), wanted)
    got = gateway.GetJobStatus(job={"backend": "immuta", "job_id": job}, view="JOB_STATUS_VIEW_FULL").status
    check("immuta: the result is JSON", got.result.content_type, "application/json")
    check("immuta: no digit of it is lost", json.loads(got.result.data), json.loads(output))
    check("immuta: the vendor's own object", json.loads(got.vendor_payload),
          {"id": job, "state": "completed", "output": json.loads(output), "retryCount": 0})

    text = simulator(url, "jobs", {"end": {"success": {"text": "24 tables é"}}})["id"]
    check("immuta: a text is a text", gateway.status("immuta", text)["result"],
          {"data": base64("24 tables é".encode()), "content_type": "text/plain; charset=utf-8"})

    failed = simulator(url, "jobs", {"end": {"failure": {"message": "no such column"}}})["id"]
    got = gateway.status("immuta", failed)
    check("immuta: a failed job is a valid response", got["state"], "JOB_STATE_FAILED")
    check("immuta: with the vendor's message", got["error"]["message"], "no such column")

    for word, state in [("created", "PENDING"), ("active", "RUNNING"), ("retry", "RETRYING"),
                        ("cancelled", "CANCELLED"), ("expired", "EXPIRED")]:
        held = simulator(url, "jobs", {"held": word})["id"]
        got = gateway.status("immuta", held)
        check(f"immuta: {word} is {state}", (got["state"], got.get("terminal", False)),
              (f"JOB_STATE_{state}", f"JOB_STATE_{state}" in TERMINAL))


def check_kinetica(gateway, url):
    job = "4611686018427387907"
    simulator(url, "jobs", {"id": job, "tag": "a-tag", "end": {"success": {"binary": list(EVERY_BYTE)}}})
    wanted = {
        "job": {"backend": "kinetica", "job_id": job},
        "state": "JOB_STATE_SUCCEEDED",
        "vendor_state": "DONE",
        "terminal": True,
        "progress": {"percent": 100.0},
        "result": {"data": base64(EVERY_BYTE), "content_type": "avro/binary"},
        "job_type": "/alter/table",
    }
    check("kinetica: an id beyond 2^53 and every byte of a result", gateway.status("kinetica", job), wanted)
    got = as_dict(gateway.GetJobStatus(job={"backend": "kinetica", "job_id": "1", "job_tag": "a-tag"}))
    wanted["job"] = {"backend": "kinetica", "job_id": "1", "job_tag": "a-tag"}
    check("kinetica: a tag finds it", timeless(got["status"]), wanted)


def check_claret(gateway, url):
    job = simulator(url, "jobs", {
        "running_for_ms": 3600000, "steps": ["upload", "match", "write"], "description": "Stock of Monday",
        "files": [{"category": "input", "name": "stock.csv", "content": {"bytes": "sku\n"}}],
    })["id"]
    got = gateway.status("claret", job)
    [artifact] = got.pop("artifacts")
    start_time, vendor_url = got.pop("start_time"), got.pop("vendor_url")
    check("claret: a running job", got, {
        "job": {"backend": "claret", "job_id": job},
        "state": "JOB_STATE_RUNNING",
        "vendor_state": "in_progress",
        "progress": {"completed_steps": "0", "total_steps": "3", "current_step": "upload"},
        "job_type": "inventory-import",
        "description": "Stock of Monday",
        "owner": "42",
    })
    check("claret: its start is a time", start_time.endswith("Z"), True)
    check("claret: its page", vendor_url.endswith(f"/imports/logs/{job}"), True)
    check("claret: its file", (artifact["category"], artifact["file_name"], bool(artifact["artifact_id"])),
          ("input", "stock.csv", True))


def check_datasaur(gateway, url):
    job = simulator(url, "jobs", {"end": {"failure": {"message": "the model answered 502"}}})["id"]
    got = gateway.status("datasaur", job, view="JOB_STATUS_VIEW_BASIC")
    check("datasaur: a failed job", (got["state"], got["vendor_state"], got["terminal"]),
          ("JOB_STATE_FAILED", "FAILED", True))
    check("datasaur: the vendor's words", "the model answered 502" in got["error"]["message"], True)
    check("datasaur: its creation is a time", got["create_time"].endswith("Z"), True)


def check_batch(gateway, urls):
    done = simulator(urls["immuta"], "jobs", {})["id"]
    running = simulator(urls["claret"], "jobs", {"held": "in_progress"})["id"]
    jobs = [
        {"backend": "immuta", "job_id": done},
        {"backend": "immuta", "job_id": "no-such-job"},
        {"backend": "claret", "job_id": running},
        {"backend": "claret", "job_id": "x"},
        {"backend": "nobody", "job_id": "1"},
        {"backend": "immuta", "job_id": done},
    ]
    results = gateway.BatchGetStatuses(jobs=jobs).results
    check("a batch has the order of the request", [as_dict(result.job) for result in results], jobs)
    outcomes = [
        as_dict(result.status)["state"] if result.WhichOneof("outcome") == "status"
        else (result.error.code, result.error.reason)
        for result in results
    ]
    check("a batch has an outcome for each job", outcomes, [
        "JOB_STATE_SUCCEEDED",
        (5, "JOB_NOT_FOUND"),
        "JOB_STATE_RUNNING",
        (3, "INVALID_JOB_ID"),
        (5, "UNKNOWN_BACKEND"),
        "JOB_STATE_SUCCEEDED",
    ])
    check("an element's error names its field",
          results[3].error.metadata["field"], "jobs[3].job_id")


def check_watch(gateway, url):
    job = simulator(url, "jobs", {"held": "created", "end": {"success": {"text": "done"}}})["id"]
    call = gateway.WatchJob(job={"backend": "immuta", "job_id": job})
    seen = []
    for name, event, _ in events(call):
        seen.append((name, event.get("vendor_state")))
        if seen[-1] == ("status", "created"):
            simulator(url, f"jobs/{job}/state", {"state": "active"}, "PUT")
        elif seen[-1] == ("status", "active"):
            simulator(url, f"jobs/{job}/finish")
    check("a watch shows every change", seen,
          [("status", "created"), ("status", "active"), ("status", "completed")])
    check("a watch ends with OK after the terminal status", call.code(), grpc.StatusCode.OK)

    call = gateway.WatchJob(job={"backend": "immuta", "job_id": job})
    check("an ended job is one status and OK",
          ([event["state"] for _, event, _ in events(call)], call.code()),
          (["JOB_STATE_SUCCEEDED"], grpc.StatusCode.OK))


def check_wait(gateway, url):
    job = simulator(url, "jobs", {"running_for_ms": 300})["id"]
    check("a get waits for the end", gateway.status("immuta", job, wait="15s")["state"], "JOB_STATE_SUCCEEDED")


def check_resume(gateway, url):
    job = simulator(url, "jobs", {"held": "active"})["id"]
    watch = {"job": {"backend": "immuta", "job_id": job}, "heartbeat_interval": "0.05s"}
    call = gateway.WatchJob(job=watch["job"])
    name, event, token = next(events(call))
    check("the first event is the status", (name, event["vendor_state"]), ("status", "active"))
    check("it has a resume token", bool(token), True)
    call.cancel()

    call = gateway.WatchJob(resume_token=token, **watch)
    resumed = events(call)
    name, _, token = next(resumed)
    check("what was sent is not sent again", name, "heartbeat")
    simulator(url, f"jobs/{job}/finish")
    rest = [(name, event) for name, event, _ in resumed if name != "heartbeat"]
    check("what changed is", [(name, event["vendor_state"]) for name, event in rest], [("status", "completed")])
    check("then it ends", call.code(), grpc.StatusCode.OK)

    other = {"backend": "immuta", "job_id": "another"}
    for title, fields in [("another job's token is refused", {"job": other, "resume_token": token}),
                          ("a broken token is refused", {"job": watch["job"], "resume_token": "broken"})]:
        with fails(title, grpc.StatusCode.INVALID_ARGUMENT) as got:
            next(gateway.WatchJob(**fields))
        check(f"{title}, with its reason", got["ErrorInfo"].reason, "INVALID_RESUME_TOKEN")
        check(f"{title}, by its field", [v.field for v in got["BadRequest"].field_violations], ["resume_token"])


def check_errors(gateway, urls):
    with fails("an unknown job is NOT_FOUND", grpc.StatusCode.NOT_FOUND) as got:
        gateway.status("immuta", "no-such-job")
    info = got["ErrorInfo"]
    check("its ErrorInfo", (info.reason, info.domain, dict(info.metadata)),
          ("JOB_NOT_FOUND", "jobwatch", {"backend": "immuta", "job_id": "no-such-job"}))
    resource = got["ResourceInfo"]
    check("its ResourceInfo", (resource.resource_type, resource.resource_name), ("job", "immuta/no-such-job"))

    with fails("an unknown backend is NOT_FOUND", grpc.StatusCode.NOT_FOUND) as got:
        gateway.status("nobody", "1")
    check("its reason", got["ErrorInfo"].reason, "UNKNOWN_BACKEND")
    check("its resource", got["ResourceInfo"].resource_type, "backend")

    with fails("a request without a job is INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as got:
        gateway.GetJobStatus()
    check("its reason and field",
          (got["ErrorInfo"].reason, [v.field for v in got["BadRequest"].field_violations]),
          ("INVALID_REQUEST", ["job"]))

    with fails("an id of the wrong form is INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT) as got:
        gateway.status("kinetica", "seven")
    check("its reason and field, too",
          (got["ErrorInfo"].reason, [v.field for v in got["BadRequest"].field_violations]),
          ("INVALID_JOB_ID", ["job.job_id"]))

    simulator(urls["kinetica"], "faults", {"effect": {"refuse": "Access denied; ok"}, "times": 1})
    with fails("what the gateway may not is FAILED_PRECONDITION", grpc.StatusCode.FAILED_PRECONDITION) as got:
        gateway.status("kinetica", "7")
    check("its reason is the backend's", got["ErrorInfo"].reason, "BACKEND_FORBIDDEN")

    throttled = {"status": {"code": 429, "headers": {"retry-after": "1"}}}
    simulator(urls["datasaur"], "faults", {"effect": throttled, "path": "/graphql", "times": 1})
    with fails("a throttled backend is UNAVAILABLE", grpc.StatusCode.UNAVAILABLE) as got:
        gateway.status("datasaur", "AutoLabelQueue:1")
    check("its reason and HTTP status", (got["ErrorInfo"].reason, got["ErrorInfo"].metadata["http_status"]),
          ("BACKEND_THROTTLED", "429"))
    wait = got["RetryInfo"].retry_delay.ToTimedelta().total_seconds()
    check("its RetryInfo is the vendor's", 0 < wait <= 1, True)


def check_deadlines(gateway, urls):
    done = simulator(urls["immuta"], "jobs", {})["id"]
    simulator(urls["claret"], "faults", {"effect": "hang", "path": "/imports/status/"})
    with fails("a get ends with its deadline", grpc.StatusCode.DEADLINE_EXCEEDED):
        gateway.status("claret", "1", timeout=0.3)
    jobs = [{"backend": "claret", "job_id": "1"}, {"backend": "immuta", "job_id": done}]
    results = gateway.BatchGetStatuses(jobs=jobs, timeout=2).results
    check("a batch returns the known statuses before its deadline",
          (results[0].error.code, as_dict(results[1].status)["state"]), (4, "JOB_STATE_SUCCEEDED"))
    simulator(urls["claret"], "faults", method="DELETE")

    job = simulator(urls["immuta"], "jobs", {"held": "active"})["id"]
    with fails("a watch ends with its deadline", grpc.StatusCode.DEADLINE_EXCEEDED):
        for name, _, _ in events(gateway.WatchJob(job={"backend": "immuta", "job_id": job}, timeout=0.5)):
            check("after its status", name, "status")


def check_cancellation(gateway, url):
    """Once a poll of another job does not list the cancelled one, no later poll may."""
    cancelled, other = (simulator(url, "jobs", {"held": "active"})["id"] for _ in range(2))
    call = gateway.WatchJob(job={"backend": "immuta", "job_id": cancelled})
    next(call)
    call.cancel()
    with fails("a cancelled call is CANCELLED", grpc.StatusCode.CANCELLED):
        next(call)

    def polled():
        # With the default max_age, every get is a poll.
        number = len(simulator(url, "calls", method="GET"))
        gateway.status("immuta", other)
        return {job for call in simulator(url, "calls", method="GET")[number:] for job in call["job_ids"]}

    for _ in range(50):
        if cancelled not in polled():
            break
    check("a job that nobody watches is not polled", [cancelled in polled() for _ in range(5)], [False] * 5)


def check_backends(gateway):
    """Last of the vendors' checks: by then each has responded."""
    backends = gateway.ListBackends().backends
    check("the backends are listed", [(backend.name, backend.vendor) for backend in backends],
          [(name, name) for name in ["claret", "datasaur", "immuta", "kinetica"]])
    check("each has responded", [backend.HasField("last_success_time") for backend in backends], [True] * 4)


def check_health(gateway):
    health = health_pb2_grpc.HealthStub(gateway.channel)
    for service in ["", SERVICE]:
        response = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        check(f"health of {service or 'the server'}", response.status, health_pb2.HealthCheckResponse.SERVING)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE)
    check("health can be watched", next(watch).status, health_pb2.HealthCheckResponse.SERVING)
    watch.cancel()
    with fails("health of an unknown service is NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE)


def base64(data):
    return b64encode(data).decode()


def main(address, *simulators):
    urls = dict(simulator.split("=", 1) for simulator in simulators)
    gateway = Gateway(address)
    check_reflection(gateway)
    check_immuta(gateway, urls["immuta"])
    check_kinetica(gateway, urls["kinetica"])
    check_claret(gateway, urls["claret"])
    check_datasaur(gateway, urls["datasaur"])
    check_batch(gateway, urls)
    check_watch(gateway, urls["immuta"])
    check_wait(gateway, urls["immuta"])
    check_resume(gateway, urls["immuta"])
    check_errors(gateway, urls)
    check_deadlines(gateway, urls)
    check_cancellation(gateway, urls["immuta"])
    check_backends(gateway)
    check_health(gateway)
    finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
