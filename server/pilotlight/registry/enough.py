"""How many threads are enough for each model on this machine, as its workers measured it.

Owns `threads.json` in the state directory. A measurement holds for a model's files as they were, its
settings, mode, library build and machine, and for what the clocks follow: at low ones decoding is arithmetic,
and wants more threads.
"""

import hashlib
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
from msgspec import Meta, Struct, to_builtins

from pilotlight.core import Model
from pilotlight.power.clocks import Clock, Clocks
from pilotlight.registry import ladder
from pilotlight.registry.digest import digest_of
from pilotlight.registry.records import Records
from pilotlight.runtimes.limits import num_cores

MOST_TRIES = 5
"""In vain, until the daemon starts again or something else has the name: some end because somebody asks
meanwhile, and on a machine that is never quiet all come to nothing."""

log = structlog.get_logger()


class Measured(Struct, frozen=True):
    """So many of a model's threads are enough; `at` is Unix seconds, the rest for whoever reads the file."""

    model: str
    clock: str
    threads: Annotated[int, Meta(ge=1)]
    at: float


class Enough:
    """Owns what is known. `look` and `record` block on files: call them from a thread, all others in the
    event loop."""

    def __init__(self, state_dir: Path, clocks: Clocks, clock: Callable[[], float] = time.time) -> None:
        self._records = Records(state_dir / "threads.json", Measured)
        self._clocks = clocks
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, dict[Clock, str]] = {}
        """At the last look."""
        self._known: dict[str, dict[Clock, int]] = {}
        self._asked: dict[str, Clock] = {}
        self._tries: defaultdict[str, Counter[Clock]] = defaultdict(Counter)

    def look(self, model: Model, mode: str) -> None:
        """Read what is known of a model that is about to be loaded in this mode; what could not be written
        is known until something else has the name.

        Raises `OSError` if it has no files.
        """
        digest = digest_of(model)
        keys = {clock: _key(model, mode, clock, digest) for clock in Clock}
        with self._lock:
            found = self._records.read()
        known = {clock: found[key].threads for clock, key in keys.items() if key in found}
        if keys == self._keys.get(model.name):
            known = self._known[model.name] | known
        else:
            self._keys[model.name], self._tries[model.name] = keys, Counter()
        self._known[model.name] = known

    def known(self, model: str) -> int:
        """With the clocks of now; else the most that ever were needed, as fewer cost speed. 0: not known."""
        found = self._known.get(model, {})
        return found.get(self._clocks.now) or max(found.values(), default=0)

    def ask(self, model: str) -> bool:
        """It is to be measured now: not known with these clocks, which are steady, and not tried in vain."""
        clock = self._clocks.now
        if clock in self._known.get(model, ()) or not self._clocks.are_steady:
            return False
        if self._tries[model][clock] >= MOST_TRIES:
            return False
        self._tries[model][clock] += 1
        self._asked[model] = clock
        return True

    def answer(self, model: str, threads: int) -> Clock | None:
        """What came of asking, and with which clocks; None if that is nothing to rely on: 0, or they have
        changed meanwhile."""
        clock = self._asked.pop(model, None)
        is_sound = threads > 0 and clock is self._clocks.now and self._clocks.are_steady
        log.info("threads measured", model=model, enough=threads, clock=clock, is_sound=is_sound)
        if clock is None or not is_sound:
            return None
        self._known.setdefault(model, {})[clock] = threads
        return clock

    def record(self, model: Model, mode: str, clock: Clock) -> None:
        """Keep what is known with these clocks. Raises `OSError` if the model's files are gone."""
        threads = self._known[model.name][clock]
        key = _key(model, mode, clock, digest_of(model))
        with self._lock:
            self._records.add(key, Measured(model.name, clock, threads, self._clock()))


def _key(model: Model, mode: str, clock: Clock, digest: str) -> str:
    """All that a measurement depends on; the digest is of the model's files."""
    facts = (
        digest,
        model.runtime,
        ladder.build(model.runtime),
        ladder.machine(),
        mode,
        model.threads or num_cores(),
        model.provider,
        to_builtins(model.loading),
        clock,
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
