"""What the log looks like."""

import io
import logging
import os
import pty
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import structlog

from pilotlight import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the process's; leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def written(level: str, stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    log.configure(level, stream)
    structlog.get_logger().info("worker ready", model="pilot", load_s=0.5)
    return stream


def test_a_file_gets_logfmt() -> None:
    """One line, keys and values, time and level first."""
    line = written("info").getvalue()
    assert line.startswith("timestamp=")
    assert line.endswith('level=info event="worker ready" model=pilot load_s=0.5\n')


def test_a_terminal_gets_text_for_people() -> None:
    """The event, then its fields."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = written("info", Terminal()).getvalue()
    assert "worker ready" in text
    assert "event=" not in text


def test_less_urgent_events_are_dropped() -> None:
    """By the level in the settings."""
    assert written("warning").getvalue() == ""


def test_libraries_are_heard_from_warning_up() -> None:
    """They log with `logging`."""
    stream = written("warning")
    logging.getLogger("uvicorn.error").info("chatter")
    logging.getLogger("uvicorn.error").warning("trouble")
    assert stream.getvalue().endswith("level=warning event=trouble logger=uvicorn.error\n")


def test_an_exception_that_a_library_logs_is_told_without_its_message() -> None:
    """What it is and where it happened. asyncio's text repeats the message, but in later lines."""
    stream = written("error")
    try:
        raise ExceptionGroup("a secret", [ValueError("a secret")])
    except ExceptionGroup as exc:
        text = f"Task exception was never retrieved\nfuture: <Task exception={exc!r}>"
        logging.getLogger("asyncio").error(text, exc_info=exc.exceptions[0])
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=exc)
    assert "secret" not in stream.getvalue().replace('raise ExceptionGroup("a secret"', "")
    assert stream.getvalue().count("error=ValueError") == 2
    assert 'event="Task exception was never retrieved" logger=asyncio' in stream.getvalue()


def test_an_exception_stays_on_one_line() -> None:
    """So that every line of a log file is an event."""
    stream = written("error")
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: boom" in stream.getvalue()


@pytest.mark.parametrize("open_both_ends", [os.pipe, pty.openpty])
def test_a_line_that_cannot_be_written_is_lost(open_both_ends: Callable[[], tuple[int, int]]) -> None:
    """Who reads has gone, or the terminal was closed; what is logged goes on."""
    ours, theirs = open_both_ends()
    stream = os.fdopen(theirs, "w", buffering=1)
    try:
        log.configure("info", stream)
        os.close(ours)
        structlog.get_logger().info("worker ready")
        logging.getLogger("uvicorn.error").warning("trouble")
        with pytest.raises(OSError):
            print("it really cannot", file=stream, flush=True)
    finally:
        with suppress(OSError):
            stream.close()
