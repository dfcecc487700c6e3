"""As client.py, with asyncio."""

import asyncio
import sys

import grpc.aio
from jobwatch_client import CHANNEL_OPTIONS, GatewayError, JobState, JobStatus
from jobwatch_client.aio import JobClient


def show(status: JobStatus) -> None:
    print(f"{JobState.Name(status.state)} {status.error.message}".strip(), flush=True)


async def main(address: str, job: str, command: str) -> None:
    async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        jobs = JobClient(channel)
        if command == "wait":
            show(await jobs.wait(job, timeout=3600))
        elif command == "result":
            sys.stdout.buffer.write(await jobs.result(await jobs.wait(job)))
        else:
            async for update in jobs.follow(job):
                if update.error:
                    raise update.error
                if update.status:
                    show(update.status)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except GatewayError as error:
        sys.exit(str(error))
