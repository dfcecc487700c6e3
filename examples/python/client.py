"""Waits for a job, watches it, or writes its result, through restarts of the gateway.

    pip install ./clients/python
    python examples/python/client.py 127.0.0.1:50051 immuta-prod/42 wait|watch|result
"""

import sys

import grpc
from jobwatch_client import CHANNEL_OPTIONS, GatewayError, JobClient, JobState, JobStatus


def show(status: JobStatus) -> None:
    print(f"{JobState.Name(status.state)} {status.error.message}".strip(), flush=True)


def main(address: str, job: str, command: str) -> None:
    with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        jobs = JobClient(channel)
        if command == "wait":
            show(jobs.wait(job, timeout=3600))
        elif command == "result":
            sys.stdout.buffer.write(jobs.result(jobs.wait(job)))
        else:
            for update in jobs.follow(job):
                if update.error:
                    raise update.error
                if update.status:
                    show(update.status)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GatewayError as error:
        sys.exit(str(error))
