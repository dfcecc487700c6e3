"""Watches a job until it ends, through restarts of the server and lost connections.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. \\
        $(find proto -name '*.proto')
    python examples/watch.py 127.0.0.1:50051 immuta/cefb58a0-cd71-11ec-8e29-81c20d280994

Exits with 0 if the job succeeded, with 1 if it ended in another state.
"""

import random
import sys
import time

import grpc

sys.path.insert(0, ".")
from jobwatch.v1 import job_pb2, job_status_service_pb2, job_status_service_pb2_grpc

# The server is shutting down or the connection was lost. The job is not affected.
TRANSIENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}


def watch(stub, job):
    """Yields each status. Resumes the stream after a lost connection."""
    token, pause = "", 1
    while True:
        request = job_status_service_pb2.WatchJobRequest(job=job, resume_token=token)
        try:
            for event in stub.WatchJob(request):
                token, pause = event.resume_token, 1
                if event.HasField("status"):
                    yield event.status
                elif event.HasField("interruption"):
                    print(f"... {event.interruption.cause.message}", file=sys.stderr)
            return
        except grpc.RpcError as error:
            if error.code() not in TRANSIENT:
                raise
            # Thousands of clients may have lost the same server: they don't come back together.
            wait = pause * random.uniform(0.5, 1.5)
            print(f"... {error.details()}; again in {wait:.1f} s", file=sys.stderr)
            time.sleep(wait)
            pause = min(2 * pause, 30)


def main(address, name):
    backend, job_id = name.split("/", 1)
    job = job_pb2.JobRef(backend=backend, job_id=job_id)
    status = None
    with grpc.insecure_channel(address) as channel:
        stub = job_status_service_pb2_grpc.JobStatusServiceStub(channel)
        for status in watch(stub, job):
            print(job_pb2.JobState.Name(status.state), status.error.message, flush=True)
    return 0 if status and status.state == job_pb2.JOB_STATE_SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
