"""Waits for jobs behind a jobwatch gateway, and follows them, through restarts of the gateway and
lost connections.

    with grpc.insecure_channel("127.0.0.1:50051", CHANNEL_OPTIONS) as channel:
        status = JobClient(channel).wait("immuta-prod/42", timeout=3600)

`jobwatch_client.aio` has the same for asyncio.
"""

from jobwatch.v1.job_pb2 import JobRef, JobState, JobStatus, JobStatusView

from ._client import JobClient
from ._errors import GatewayError, NotEnded
from ._session import Job, Update

#: Options for a channel: pings find a dead connection, calls are spread over all addresses of
#: the target, and the channel reconnects within two seconds: how often is up to the client.
CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
]

__all__ = [
    "CHANNEL_OPTIONS",
    "GatewayError",
    "Job",
    "JobClient",
    "JobRef",
    "JobState",
    "JobStatus",
    "JobStatusView",
    "NotEnded",
    "Update",
]
