"""The gateway's errors, and when to call again."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from jobwatch.v1.job_pb2 import CallError, JobState, JobStatus

_FIRST, _LONGEST = 0.25, 10.0
#: Doublings of the first wait within the first five tries: a gateway that restarts is back soon, so
#: none of them waits for more than two seconds.
_FIRST_DOUBLINGS = 3
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CODE = grpc.StatusCode


class GatewayError(Exception):
    """An error of the gateway: of a call, or of one job of a call."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}: {message}" + (f" ({reason})" if reason else ""))
        #: The gRPC code.
        self.code = code
        #: One line for developers.
        self.message = message
        #: The reason of the ErrorInfo, such as "JOB_NOT_FOUND". Empty if a proxy or the
        #: connection failed.
        self.reason = reason
        #: The metadata of the ErrorInfo, with "field" and "limit" where the error names one.
        self.metadata = metadata or {}
        #: The wait in seconds that the gateway asks for.
        self.retry_delay = retry_delay

    @property
    def resumable(self) -> bool:
        """Whether a wait or a watch goes on in another call."""
        if self.code in (_CODE.UNAVAILABLE, _CODE.DEADLINE_EXCEEDED):
            return True
        if self.code in (_CODE.UNKNOWN, _CODE.INTERNAL, _CODE.CANCELLED):
            return not self.reason
        return self.code is _CODE.RESOURCE_EXHAUSTED and self.retry_delay is not None

    def wait_before_next(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row: what the gateway asks for, and at least
        a growing back-off with jitter, of at most two seconds for the first five."""
        doublings = max(min(failures, _FIRST_DOUBLINGS), failures - 1)
        most: float = min(_FIRST * 2 ** min(doublings, 16), _LONGEST)
        return max(_FIRST / 2 + (most - _FIRST / 2) * random.random(), self.retry_delay or 0.0)


class NotEnded(GatewayError, TimeoutError):
    """The timeout has passed before the job ended."""

    def __init__(self, timeout: float, status: JobStatus | None = None) -> None:
        state = JobState.Name(status.state).removeprefix("JOB_STATE_") if status else ""
        words = f"it was {state}" if state else "no status was received"
        super().__init__(_CODE.DEADLINE_EXCEEDED, f"not ended after {timeout:g} s; {words}")
        #: The newest status, if any was received.
        self.status = status
        #: Why nothing newer is known: the vendor could not be polled, or the gateway not reached.
        self.problem: GatewayError | None = None

    def __str__(self) -> str:
        return super().__str__() + (f"; before that: {self.problem}" if self.problem else "")


def of_element(error: CallError) -> GatewayError:
    """The error of one job."""
    delay = error.retry_delay.ToTimedelta().total_seconds() if error.HasField("retry_delay") else None
    code = _CODES.get(error.code, _CODE.UNKNOWN)
    return GatewayError(code, error.message, error.reason, dict(error.metadata), delay)


def of_call(error: grpc.RpcError) -> GatewayError:
    """The error of a call, with its details decoded."""
    call: Any = error
    trailers: Iterable[tuple[str, str | bytes]] = call.trailing_metadata() or ()
    reason, metadata, delay = "", dict[str, str](), None
    bytes_of_details = next((value for key, value in trailers if key == "grpc-status-details-bin"), b"")
    assert isinstance(bytes_of_details, bytes)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    request, quota = error_details_pb2.BadRequest(), error_details_pb2.QuotaFailure()
    for detail in status_pb2.Status.FromString(bytes_of_details).details:
        if detail.Unpack(info):
            reason, metadata = info.reason, {**info.metadata, **metadata}
        elif detail.Unpack(retry):
            delay = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(request) and request.field_violations:
            metadata["field"] = request.field_violations[0].field
        elif detail.Unpack(quota) and quota.violations:
            metadata["limit"] = quota.violations[0].subject
    return GatewayError(call.code(), call.details() or "", reason, metadata, delay)
