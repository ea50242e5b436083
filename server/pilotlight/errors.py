"""Every error a client or the person at the machine can see.

    Error
    ├── ConfigError            400, a setting or flag is wrong; the start stops, a reload changes nothing
    ├── BadRequest             400, the request cannot mean anything
    │   ├── UnknownField       400, a field nobody knows, with the nearest one that exists
    │   ├── Unsupported        400, a known field or value this server does not do
    │   └── ContextOverflow    400, the prompt is longer than the context; an answer ends where that does
    ├── BodyTooLarge           413
    ├── InvalidKey             401, the path needs a key, and none or another came
    ├── NotAllowed             403, Host or Origin is not one of ours
    ├── DoesNotFit             400, the model needs more memory than the budget will ever be
    ├── ModelNotFound          404, with the nearest name
    │   └── NotPulled          404, it is known where to get it, and the command that does
    ├── NoRollback             409, the model has no previous version
    ├── PullFailed             502, a download ended without its file; what came is kept
    │   ├── NoSpace            507, the disk is too full for it
    │   └── SmokeFailed         502, a new version does not load or says nothing; it is not activated
    ├── NotFound               404, no such path
    ├── MethodNotAllowed       405
    ├── Unloaded               409, the load was broken off by a stop
    ├── Conflict               409, a file or batch is in no state for that
    ├── DiskFull               507, what was sent cannot be written
    ├── Busy                   429, the queue is full; Retry-After if it is known
    ├── WorkerFailed           500, the worker died or could not load the model
    │   └── OutOfMemory        500, the system killed the worker for lack of memory
    ├── RuntimeMissing         501, the runtime's library is not installed, or importing it fails
    ├── Restricted             503, the policy refuses it: a rule of models.toml, or one of these
    │   ├── BatteryFloor       503, the battery is too low for it
    │   ├── ThermalCritical    503, the machine is too hot
    │   ├── MemoryPressure     503, memory is too short
    │   └── BackgroundBlocked  503, nothing runs in the background now
    ├── NoMemory               503, other programs hold the memory it needs
    ├── Unreachable            503, the model's disk does not answer
    ├── ShuttingDown           503
    └── Internal               500, our own bug

Each class carries the HTTP status, OpenAI's `type` and `code`, and who failed (`daemon` or `worker`).
"""

import math
from typing import Any, ClassVar

LONGEST_RETRY_S = 120
"""openai-python does not retry at all when it is told to wait longer."""


def retry_after(seconds: float | None) -> int | None:
    """Whole seconds to tell a client, if it is known when to come back, and not too late."""
    return max(1, math.ceil(seconds)) if seconds is not None and seconds <= LONGEST_RETRY_S else None


class Error(Exception):
    """Base of all; `message` says what, which, the numbers, and what to try next."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    source: ClassVar[str] = "daemon"
    is_final: ClassVar[bool] = False
    """A moment later it would be the same, or undo what somebody has just done: no client should try again by
    itself, unless `retry_after_s` says when."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The OpenAI error object, plus `source`."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                "source": self.source,
            }
        }


class ConfigError(Error):
    """A setting or flag is wrong: the message names file, key and what would be right."""

    status = 400
    type = "invalid_request_error"
    code = "config_error"


class BadRequest(Error):
    """The body is not what the endpoint takes; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class UnknownField(BadRequest):
    """A field nobody knows; send it without, or with the name the message suggests."""

    code = "unknown_parameter"


class Unsupported(BadRequest):
    """A field or value OpenAI knows and this server does not do; nothing is silently ignored."""

    code = "unsupported_parameter"


class ContextOverflow(BadRequest):
    """The prompt does not fit the model's context; shorten it or raise `context`."""

    code = "context_length_exceeded"


class BodyTooLarge(Error):
    """The request body passes `server.body_limit`."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class NotAllowed(Error):
    """The Host or Origin header is not one of ours: a web page tried to reach the daemon."""

    status = 403
    type = "permission_error"
    code = "origin_not_allowed"


class InvalidKey(Error):
    """The path needs a key, and the request has none or a wrong one; the message says which key it wants."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class NotFound(Error):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No model of that name; the message gives the nearest."""

    code = "model_not_found"


class NotPulled(ModelNotFound):
    """The model is configured by its source and is not on this machine yet; `pilotlight pull` gets it."""

    code = "model_not_pulled"


class NoRollback(Error):
    """There is no previous version to return to."""

    status = 409
    type = "invalid_request_error"
    code = "no_previous_version"
    is_final = True


class PullFailed(Error):
    """A download ended without its file; the message says why. What has come is kept for the next try."""

    status = 502
    code = "pull_failed"


class NoSpace(PullFailed):
    """The disk is too full for the download; make room, with `pilotlight prune` for instance."""

    status = 507
    code = "no_space"


class SmokeFailed(PullFailed):
    """A new version does not load or says nothing. The one that was active still is."""

    code = "smoke_test_failed"


class MethodNotAllowed(Error):
    """The path exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Unloaded(Error):
    """Somebody unloaded the model before its load was done; load it again."""

    status = 409
    type = "invalid_request_error"
    code = "model_unloaded"
    is_final = True


class Conflict(Error):
    """A file or batch is in no state for what was asked; the message says what must come first."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"
    is_final = True


class DiskFull(Error):
    """What was sent cannot be written, and nothing of it is kept; make room and send it again."""

    status = 507
    code = "disk_full"
    is_final = True


class Busy(Error):
    """The queue is full; `Retry-After` says when a place is expected, once requests have taken their time."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class DoesNotFit(Error):
    """The model needs more than `memory.budget`, or its own `memory`; the message has both numbers and what
    would make it fit."""

    status = 400
    type = "invalid_request_error"
    code = "model_does_not_fit"


class WorkerFailed(Error):
    """The worker died or could not load the model; the next request starts a fresh one."""

    code = "worker_failed"
    source = "worker"


class OutOfMemory(WorkerFailed):
    """The system killed the worker because memory ran out; the model is charged more from now on."""

    code = "out_of_memory"


class RuntimeMissing(Error):
    """The runtime's library is not installed or cannot be imported; the message says what to install."""

    status = 501
    code = "runtime_missing"
    is_final = True


class NoMemory(Error):
    """The budget follows what other programs leave free, and that is too little now; try again later."""

    status = 503
    code = "not_enough_memory"


class Unreachable(Error):
    """The disk that the model's files are on does not answer; try again once it does."""

    status = 503
    code = "model_unreachable"


class Restricted(Error):
    """The policy refuses the request: the message says why and what would change that. Tried again, it is
    refused again, unless `retry_after_s` says when not."""

    status = 503
    type = "policy"
    code = "policy_rule"
    is_final = True


class BatteryFloor(Restricted):
    """The battery is too low for it; plug in."""

    code = "battery_floor"


class ThermalCritical(Restricted):
    """The machine is too hot; let it cool down."""

    code = "thermal_critical"


class MemoryPressure(Restricted):
    """Memory is too short; close other programs."""

    code = "memory_pressure"


class BackgroundBlocked(Restricted):
    """Nothing runs in the background now; the message says what it waits for."""

    code = "background_blocked"


class ShuttingDown(Error):
    """The daemon is stopping and takes no new requests."""

    status = 503
    code = "shutting_down"


class Internal(Error):
    """A bug of ours; the log has the traceback."""

    code = "internal_error"
