"""The log: events with fields on stderr, coloured lines for a terminal, logfmt for everything else.

Libraries that use `logging` are heard from warning up. Knows nothing of what is logged.
"""

import logging
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO, cast

_rich: Any = sys.modules.get("rich")
# structlog would import it for tracebacks in colour, which we never ask for: 40 ms and 3 MB of the daemon.
sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's own word for "not there"
try:
    import structlog
    from structlog.typing import Processor
finally:
    del sys.modules["rich"]
    if _rich is not None:
        sys.modules["rich"] = _rich

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send events of at least `level` to the stream (stderr); call once, before anything logs.

    What the stream does not take is lost: nobody who logs hears of it.
    """
    stream = stream or sys.stderr
    structlog.configure(
        processors=_processors(is_terminal=stream.isatty()),
        # Methods below the level become no-ops: a filtered event costs one call.
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(stream))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Bridge()], level=max(_LEVELS[level], logging.WARNING), force=True)


def bug(exc: BaseException) -> dict[str, str]:
    """What it is and where it happened, for an event; without messages and locals: they may hold a prompt."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return {"error": type(exc).__name__, "frames": "".join(traceback.format_tb(exc.__traceback__))}


class _Lossy:
    """As much of a stream as is printed to. A closed terminal, a dead pipe or a full disk costs lines, and
    nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _Bridge(logging.Handler):
    """Hands the records of `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger().bind(logger=record.name)
        if record.exc_info and record.exc_info[1]:
            # asyncio has the exception in the lines that follow, too.
            text, _, _ = str(record.msg).partition("\n")
            log.log(record.levelno, text, **bug(record.exc_info[1]))
        else:
            log.log(record.levelno, record.getMessage())


def _processors(is_terminal: bool) -> list[Processor]:
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    if is_terminal:
        return [
            *shared,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    return [
        *shared,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
    ]
