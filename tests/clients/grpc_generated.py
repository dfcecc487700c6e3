"""Generates a client from proto/ alone and calls a gateway with it.

    python tests/clients/grpc_generated.py GATEWAY PROTO_DIRECTORY BACKEND JOB_ID

Google's well-known types, and the types of error details, come from their own packages and are
loaded in the same program.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import grpc
import grpc_tools
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

from checks import check, finish


def generate(proto, out):
    files = sorted(str(file.relative_to(proto)) for file in Path(proto).rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    return protoc.main(["protoc", *arguments, *files])


def main(address, proto, backend, job_id):
    with tempfile.TemporaryDirectory() as out:
        check("a client can be generated", generate(proto, out), 0)
        sys.path.insert(0, out)
        messages = importlib.import_module("jobwatch.v1.job_status_service_pb2")
        jobs = importlib.import_module("jobwatch.v1.job_pb2")
        stubs = importlib.import_module("jobwatch.v1.job_status_service_pb2_grpc")

    with grpc.insecure_channel(address) as channel:
        stub = stubs.JobStatusServiceStub(channel)
        job = jobs.JobRef(backend=backend, job_id=job_id)
        status = stub.GetJobStatus(messages.GetJobStatusRequest(job=job), timeout=20).status
        check("it gets a status", (status.job, status.state), (job, jobs.JOB_STATE_SUCCEEDED))
        watch = stub.WatchJob(messages.WatchJobRequest(job=job), timeout=20)
        check("it watches to the end", [event.status.terminal for event in watch], [True])
        request = messages.BatchGetStatusesRequest(jobs=[job, jobs.JobRef(backend=backend, job_id="no-such-job")])
        results = stub.BatchGetStatuses(request, timeout=20).results
        check("it reads an element's error", [result.error.code for result in results], [0, 5])
        printed = json_format.MessageToDict(results[1])["error"]
        check("it prints an element's error", printed["reason"], "JOB_NOT_FOUND")
        try:
            stub.GetJobStatus(messages.GetJobStatusRequest(job=request.jobs[1]), timeout=20)
        except grpc.RpcError as error:
            info = error_details_pb2.ErrorInfo()
            rpc_status.from_call(error).details[0].Unpack(info)
        check("it decodes the error of a call", info.reason, "JOB_NOT_FOUND")

    # The C core makes an authority with a comma of it, which is none.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"ipv4:{address},{address}", options) as channel:
        stub = stubs.JobStatusServiceStub(channel)
        status = stub.GetJobStatus(messages.GetJobStatusRequest(job=job), timeout=20).status
        check("it calls one of several addresses", status.job, job)
    finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
