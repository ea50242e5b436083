"""The one list of health remarks, shown by `/health`, the CLI and the log."""

import time
from collections.abc import Callable, Iterator

import structlog

from pilotlight.core import Notice, Severity

log = structlog.get_logger()


class Notices:
    """Holds at most one notice per code; parts raise and clear them."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_code: dict[str, Notice] = {}

    def raise_(self, code: str, severity: Severity, text: str) -> None:
        """Raise or update; an unchanged notice keeps its `since` and is not logged again."""
        old = self._by_code.get(code)
        if old is not None and (old.severity, old.text) == (severity, text):
            return
        self._by_code[code] = Notice(code, severity, text, old.since if old else self._clock())
        log.warning("notice raised", code=code, severity=severity.value, text=text)

    def clear(self, code: str) -> None:
        """Remove it if it stands."""
        if self._by_code.pop(code, None) is not None:
            log.info("notice cleared", code=code)

    def __iter__(self) -> Iterator[Notice]:
        return iter(sorted(self._by_code.values(), key=lambda notice: notice.since))
