"""/v1/batches: files of requests that run in their own time. OpenAI's, with windows of any length."""

import re
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from pilotlight.api import page, said
from pilotlight.api.body import Dialect, read
from pilotlight.api.edge import json_response
from pilotlight.api.files import MIN_KEEP_S
from pilotlight.api.offline import ENDPOINTS
from pilotlight.api.schema import Strict, invalid, unsupported
from pilotlight.api.service import Service
from pilotlight.batch.files import KEEP_S
from pilotlight.batch.records import Batch, State, Usage, new_id
from pilotlight.core import RequestClass
from pilotlight.policy.actions import Admit
from pilotlight.policy.facts import Facts

MAX_WINDOW_S = 30 * 86400
_UNITS = {"h": 3600, "d": 86400}


def _endpoint(value: str) -> str:
    if value not in ENDPOINTS:
        raise unsupported(f"is not done by batches; there is: {', '.join(ENDPOINTS)}")
    return value


def _window(value: str) -> str:
    match = re.fullmatch(r"([1-9]\d{0,2})([hd])", value)
    if match is None or window_s(value) > MAX_WINDOW_S:
        raise invalid("must be hours or days up to 30d, as 24h or 7d")
    return value


class OutputExpiresAfter(Strict):
    """How long the files that it writes are kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_KEEP_S, le=KEEP_S)


class BatchBody(Strict):
    """A batch to run."""

    input_file_id: str
    endpoint: Annotated[str, AfterValidator(_endpoint)]
    completion_window: Annotated[str, AfterValidator(_window)]
    metadata: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(min_length=1, max_length=64)],
                Annotated[str, StringConstraints(max_length=512)],
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    output_expires_after: OutputExpiresAfter | None = None


class BatchQuery(page.PageQuery):
    """Which batches; the newest come first."""

    limit: int = Field(20, ge=1, le=100)


_BATCH = Dialect(BatchBody, {})


async def create(http: HttpRequest, service: Service) -> Response:
    """Take in a batch; it is checked, and runs when those before it are over."""
    asked, _ = await read(http, _BATCH, service.config.server)
    now, keep = time.time(), asked.output_expires_after
    batch = Batch(
        id=new_id("batch_"),
        endpoint=asked.endpoint,
        input_file_id=asked.input_file_id,
        completion_window=asked.completion_window,
        created_at=now,
        expires_at=now + window_s(asked.completion_window),
        output_keep_s=KEEP_S if keep is None else keep.seconds,
        metadata=asked.metadata,
    )
    return await _response(await service.batches.create(batch), service)


async def batches(http: HttpRequest, service: Service) -> Response:
    """The batches there are."""
    query = page.parse(http.query_params, BatchQuery)
    found = await service.batches.all()
    waits = await _waits(found, service)
    return json_response(page.page(found[::-1], query, lambda one: body(one, waits)))


async def batch(http: HttpRequest, service: Service) -> Response:
    """A batch as it stands."""
    return await _response(await service.batches.get(http.path_params["id"]), service)


async def cancel(http: HttpRequest, service: Service) -> Response:
    """Stop a batch; what it has answered is kept."""
    return await _response(await service.batches.cancel(http.path_params["id"]), service)


async def delete(http: HttpRequest, service: Service) -> Response:
    """Delete a batch that is over, and the files that it wrote."""
    batch_id = http.path_params["id"]
    await service.batches.remove(batch_id)
    return json_response({"id": batch_id, "object": "batch", "deleted": True})


def window_s(window: str) -> int:
    """Seconds of a checked window."""
    return int(window[:-1]) * _UNITS[window[-1]]


async def _response(batch: Batch, service: Service) -> Response:
    return json_response(body(batch, await _waits([batch], service)))


async def _waits(found: Iterable[Batch], service: Service) -> dict[str, Any] | None:
    """What the policy says to batches at work, if it has them wait."""
    if not any(batch.status is State.IN_PROGRESS for batch in found):
        return None
    decision = await service.gate.judge(Facts(RequestClass.BATCH))
    return None if decision.actions.admit is Admit.NOW else said.body(decision)


def body(batch: Batch, waits: dict[str, Any] | None) -> dict[str, Any]:
    """OpenAI's batch object, and why one at work waits."""
    policy = {"policy": waits} if waits and batch.status is State.IN_PROGRESS else {}
    faults = [{"code": f.code, "line": f.line, "message": f.message, "param": f.param} for f in batch.faults]
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": faults} if faults else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "in_progress_at": _second(batch.in_progress_at),
        "expires_at": int(batch.expires_at),
        "finalizing_at": _second(batch.finalizing_at),
        "completed_at": _second(batch.completed_at),
        "failed_at": _second(batch.failed_at),
        "expired_at": _second(batch.expired_at),
        "cancelling_at": _second(batch.cancelling_at),
        "cancelled_at": _second(batch.cancelled_at),
        "request_counts": {
            "total": batch.counts.total,
            "completed": batch.counts.completed,
            "failed": batch.counts.failed,
        },
        "usage": _usage(batch.usage),
        "metadata": batch.metadata,
        **policy,
    }


def _second(at: float | None) -> int | None:
    return None if at is None else int(at)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
