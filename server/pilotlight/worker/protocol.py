"""The messages between the daemon and a worker, and how they become bytes.

A frame is a 4-byte little-endian length and a msgpack message of that many bytes. Each message is a
tagged array; a worker opens with `Hello`, whose `protocol` must be ours. Knows no process, no pipe
and no runtime.
"""

import struct

import msgspec

from pilotlight.core import (
    Archive,
    FinishReason,
    Loading,
    Prompt,
    RequestClass,
    Sampling,
    WorkerInfo,
)

PROTOCOL_VERSION = 4

MAX_FRAME_BYTES = 256 * 2**20
"""Longer than any legal message (bodies are limited far below); a longer frame is a broken peer."""

_LENGTH = struct.Struct("<I")


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


# --- daemon to worker ---


class Load(_Message, frozen=True, tag=True, array_like=True):
    """The first message a worker gets: what to load, and how carefully (`mode`, see `registry.ladder`)."""

    path: str
    mode: str
    context: int
    parallel: int
    threads: int
    chat_template: str | None = None
    provider: str = "auto"
    loading: Loading = Loading()
    archive: Archive | None = None
    """None: nothing of it is ever written."""
    measures_threads: bool = False
    """Once loaded, before `Ready`."""


class Generate(_Message, frozen=True, tag=True, array_like=True):
    """Start a request; `id` is the daemon's and is never used again in this worker's life."""

    id: int
    prompt: Prompt
    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]
    n: int
    ignore_eos: bool
    cache_prompt: bool
    request_class: RequestClass = RequestClass.INTERACTIVE
    context: int | None = None


class Hold(_Message, frozen=True, tag=True, array_like=True):
    """From now on compute nothing that yields, or do so again: another worker has interactive requests."""

    is_held: bool


class Cancel(_Message, frozen=True, tag=True, array_like=True):
    """Free the request's sequences before the next decode step. Unknown ids are fine: it may have ended."""

    id: int


class SetThreads(_Message, frozen=True, tag=True, array_like=True):
    """Compute an answer that runs alone with this many threads from the next decode step on, and prompts and
    answers side by side with so many; `Threads` is the answer."""

    threads: int
    prompt_threads: int


class MeasureThreads(_Message, frozen=True, tag=True, array_like=True):
    """Nothing runs: find out how many threads are enough. `Measured` is the answer."""


class Trim(_Message, frozen=True, tag=True, array_like=True):
    """Memory is short: forget every prefix at rest. What runs goes on."""


class Inspect(_Message, frozen=True, tag=True, array_like=True):
    """Ask for a `State`."""


class Finish(_Message, frozen=True, tag=True, array_like=True):
    """Write what conversations are kept to the archive, answer `Saved`, and end."""

    within_s: float


# --- worker to daemon ---


class Hello(_Message, frozen=True, tag=True, array_like=True):
    """Sent before any native code is loaded."""

    protocol: int
    pid: int


class Progress(_Message, frozen=True, tag=True, array_like=True):
    """Loading has come this far, 0 to 1. The first one says that the runtime's library is imported."""

    fraction: float
    is_measuring: bool = False
    """It is loaded, and is finding out how many threads are enough."""


class Ready(_Message, frozen=True, tag=True, array_like=True):
    """Loaded and warmed up; `Generate` may follow."""

    info: WorkerInfo


class LoadFailed(_Message, frozen=True, tag=True, array_like=True):
    """The model cannot be loaded, for the reason given; `missing`
    if the runtime's library is not installed."""

    reason: str
    missing: bool = False


class Admitted(_Message, frozen=True, tag=True, array_like=True):
    """The request passed the checks; its prompt has this many tokens."""

    id: int
    prompt_tokens: int
    restored: bool = False
    """Part of it was read from the archive."""


class Refused(_Message, frozen=True, tag=True, array_like=True):
    """The request cannot be done, or not to its end: `code` names a class of `errors`, `param` the field."""

    id: int
    code: str
    message: str
    param: str | None = None


class Delta(_Message, frozen=True, tag=True, array_like=True):
    """New text of answer `index`; `tokens` counts the tokens behind it since the last one."""

    id: int
    index: int
    text: str
    tokens: int


class FirstDelta(Delta, frozen=True, tag=True, array_like=True):
    """The first text of an answer; `cached_tokens` of its prompt were reused instead of computed."""

    cached_tokens: int


class Done(_Message, frozen=True, tag=True, array_like=True):
    """Answer `index` of the request ended; after `n` of these the request is over."""

    id: int
    index: int
    reason: FinishReason
    completion_tokens: int
    cached_tokens: int


class Computed(msgspec.Struct, frozen=True, array_like=True):
    """What was computed for the request of this number since that was last told: seconds, and tokens."""

    id: int
    prefill_s: float = 0.0
    prefill_tokens: int = 0
    decode_s: float = 0.0
    decode_tokens: int = 0

    @property
    def seconds(self) -> float:
        return self.prefill_s + self.decode_s


Event = Admitted | Refused | Delta | FirstDelta | Done


class Step(_Message, frozen=True, tag=True, array_like=True):
    """Everything that happened in one turn of the worker's loop, in order."""

    events: tuple[Event, ...]
    computed: tuple[Computed, ...] = ()
    """By request, since that was last told: always before a request ends, else every quarter of a second."""


class Paused(_Message, frozen=True, tag=True, array_like=True):
    """From now on so many sequences are paused, because interactive requests want the machine."""

    num_sequences: int


class Threads(_Message, frozen=True, tag=True, array_like=True):
    """From now on so many threads compute, as in `SetThreads`."""

    threads: int
    prompt_threads: int


class Measured(_Message, frozen=True, tag=True, array_like=True):
    """So many threads are enough; 0 if that did not come out, or something else was wanted meanwhile."""

    threads: int


class State(_Message, frozen=True, tag=True, array_like=True):
    """The worker's own count of what it holds, after its invariants were checked (`fault` if one broke)."""

    active: int
    waiting: int
    cached: int
    cells_used: int
    threads: int
    fault: str | None = None


class Saved(_Message, frozen=True, tag=True, array_like=True):
    """The worker's last word: so many conversations are in the archive now, of so many bytes."""

    count: int
    bytes: int


ToWorker = Load | Generate | Hold | Cancel | SetThreads | MeasureThreads | Trim | Inspect | Finish
ToDaemon = Hello | Progress | Ready | LoadFailed | Step | Paused | Threads | Measured | State | Saved

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_daemon: msgspec.msgpack.Decoder[ToDaemon] = msgspec.msgpack.Decoder(ToDaemon)


BAD_BYTES = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises; a tag that is no text is not among its own errors."""


class FrameError(Exception):
    """Bytes that are no frame of this protocol, or a message that cannot become one."""


def encode(message: ToWorker | ToDaemon) -> bytes:
    """One frame. Raises `FrameError` on a value that msgpack cannot carry: free JSON may hold one."""
    try:
        body = _encoder.encode(message)
    except (OverflowError, UnicodeEncodeError, RecursionError) as exc:
        raise FrameError(f"{type(message).__name__} cannot be sent: {exc}") from exc
    return _LENGTH.pack(len(body)) + body


def decode_to_worker(body: bytes | bytearray | memoryview) -> ToWorker:
    """Raises `FrameError`."""
    try:
        return _to_worker.decode(body)
    except BAD_BYTES as exc:
        raise FrameError(f"bad message from the daemon: {exc}") from exc


def decode_to_daemon(body: bytes | bytearray | memoryview) -> ToDaemon:
    """Raises `FrameError`."""
    try:
        return _to_daemon.decode(body)
    except BAD_BYTES as exc:
        raise FrameError(f"bad message from the worker: {exc}") from exc


class Splitter:
    """Cuts a byte stream into frame bodies; holds the bytes of the frame that is not complete yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies completed by `data`. Raises `FrameError` on an impossible length."""
        buffer = self._buffer
        buffer += data
        bodies, start = [], 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + _LENGTH.size : end]))
            start = end
        del buffer[:start]
        return bodies
