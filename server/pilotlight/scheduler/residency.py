"""Which models may be in memory together: the arithmetic of the budget, and who goes when another needs room.

Synchronous and pure: it knows bytes, and times it was told; no process, no request and no clock.

A model is charged all it may come to hold from the moment its load begins until its process is gone. So the
workers stay within the budget while one grows, and while one ends and the next begins.

Never ended for another's sake: what is pinned, loads, or runs something. Of the others those go first whose
loss costs least, which is, in seconds of loading per byte:

    loss = load_s / (1 + idle_s) / bytes

How long it takes to bring it back, weighed by how likely somebody will want it back soon (less, the longer
nobody asked), over what its end brings. If nobody is free, one is waited for: first one that runs nothing
interactive, and of several the one whose turn ends first. What others do makes it no other one, so whoever
has begun to make room goes on with it.

Models that do not fit side by side take turns. One that was loaded keeps its place for a few times what its
load took, unless nobody asks it for `LINGER_S`; then, if others wait, it gets no new requests, ends what it
runs, and goes. Where several have to go, all are served until the turns of all are over, unless it is for
interactive requests: for those, each is through as soon as it can be. Those who wait are served in order. So
a model waits no longer than the turns of those before it: for each, `MAX_TURN_S` at most, its longest answer,
and a load.

Interactive requests go first here, too. A model that they wait for is loaded before those that only others
wait for, and what runs nothing interactive has no turn to finish before it. The other way round, a model that
has run something interactive stays for `KEPT_S` after it, so that a person's next question waits for no load.
So background requests for a model that does not fit wait as long as interactive ones keep coming.
"""

import math
import sys
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from pilotlight.core import Request, RequestClass
from pilotlight.errors import DoesNotFit, Error, NoMemory
from pilotlight.registry.budget import Room, written, written_up
from pilotlight.registry.pressure import Level
from pilotlight.scheduler.limits import Limits

LINGER_S = 0.25
"""A program's next request comes within it, and no person notices it."""

TURN_LOADS = 3
"""At least three quarters of the time are work when models alternate without a pause."""

KEPT_S = 30.0
"""A person's next question mostly comes within it, or only after a longer pause."""

MIN_TURN_S = 1.0
MAX_TURN_S = 20.0

UNBOUNDED = Room(sys.maxsize, kept=sys.maxsize, most=sys.maxsize)


class Reason(StrEnum):
    """Why a model was unloaded."""

    ROOM = "room"
    """Another model needed its place."""
    BUDGET = "budget"
    """All together held more than they may: one grew, or the budget shrank."""
    PRESSURE = "pressure"
    """The machine runs short of memory."""
    EXPIRED = "expired"
    """Nobody asked for it for its `keep_alive`."""
    ASKED = "asked"
    """Somebody said so."""


class Needs(Struct, frozen=True):
    """What it takes to have a model loaded."""

    bytes_at_most: int = 0
    is_pinned: bool = False
    keep_alive_s: float = math.inf
    refusal: Error | None = None
    """Why it cannot be loaded at all, whatever there is room for."""


class Plan(Struct, frozen=True):
    """How room is made for a model: end these now, or let those finish first, and look again at a time."""

    stop: tuple[str, ...] = ()
    hold: frozenset[str] = frozenset()
    look_again_at: float = math.inf
    is_urgent: bool = False
    """Interactive requests wait for it."""


@dataclass(slots=True)
class Resident:
    """A model whose worker loads, runs or ends. `idle_since` is None while it runs something."""

    model: str
    num_bytes: int
    is_pinned: bool
    keep_alive_s: float
    started_at: float
    ready_at: float | None = None
    idle_since: float | None = None
    is_ending: bool = False
    limit_s: float = math.inf
    """For `keep_alive_s`, while the policy has one."""
    last_class: RequestClass = RequestClass.INTERACTIVE
    """Of what it ran."""
    is_urgent: bool = False
    """Interactive requests run or wait in it."""
    urgent_at: float = -math.inf
    """When they last did."""

    @property
    def is_candidate(self) -> bool:
        """It may have to go for another's sake, now or once it is idle."""
        return self.ready_at is not None and not self.is_pinned and not self.is_ending

    def turn_ends_at(self, is_urgent: bool) -> float:
        """For another's sake that `is_urgent` or not."""
        if self.ready_at is None:
            return math.inf
        turn_s = TURN_LOADS * (self.ready_at - self.started_at)
        ends_at = self.ready_at + min(MAX_TURN_S, max(MIN_TURN_S, turn_s))
        if is_urgent:
            return min(ends_at, self._urgent_until(LINGER_S))
        return max(ends_at, self._urgent_until(KEPT_S))

    def free_at(self, is_urgent: bool) -> float:
        """From when on it may go for another's sake, once it runs nothing."""
        ends_at = self.turn_ends_at(is_urgent)
        if self.idle_since is None:
            return ends_at
        free_at = min(ends_at, self.idle_since + LINGER_S)
        return free_at if is_urgent else max(free_at, self._urgent_until(KEPT_S))

    def _urgent_until(self, linger_s: float) -> float:
        """What is urgent in it has ended, and nothing like it came for a while."""
        return math.inf if self.is_urgent else self.urgent_at + linger_s

    @property
    def expires_at(self) -> float:
        """When it goes because nobody asks for it."""
        if self.idle_since is None or self.is_pinned or self.is_ending:
            return math.inf
        return self.idle_since + min(self.keep_alive_s, self.limit_s)

    def is_free(self, now: float, is_urgent: bool) -> bool:
        return self.idle_since is not None and self.free_at(is_urgent) <= now

    def loss(self, now: float) -> float:
        """What ending it costs; see the module."""
        assert self.ready_at is not None, f"{self.model} has no loading time yet"
        idle_s = 0.0 if self.idle_since is None else max(0.0, now - self.idle_since)
        return (self.ready_at - self.started_at) / (1 + idle_s) / max(1, self.num_bytes)


@dataclass(slots=True)
class Residency:
    """Owns the residents and what is known of each model; `room` is what there is for all of them."""

    room: Room = UNBOUNDED
    level: Level = Level.NONE
    _needs: dict[str, Needs] = field(default_factory=dict)
    _residents: dict[str, Resident] = field(default_factory=dict)
    _limits: Limits = field(default_factory=Limits)

    # --- what happened ---

    def learn(self, model: str, needs: Needs) -> None:
        """It holds for the next load."""
        self._needs[model] = needs

    def limit(self, limits: Limits) -> None:
        """These count from now on."""
        self._limits = limits
        for resident in self._residents.values():
            resident.limit_s = limits.stay_s(resident.last_class)

    def begin(self, model: str, now: float) -> None:
        """Its load begins."""
        needs = self._needs.get(model, Needs())
        self._residents[model] = Resident(
            model, needs.bytes_at_most, needs.is_pinned, needs.keep_alive_s, started_at=now
        )
        self._residents[model].limit_s = self._limits.stay_s(RequestClass.INTERACTIVE)

    def ready(self, model: str, now: float) -> None:
        self._residents[model].ready_at = self._residents[model].idle_since = now

    def busy(self, request: Request) -> None:
        """Its model was given this to run; a `keep_alive_s` that comes with it stands from now on."""
        resident = self._residents[request.model]
        resident.idle_since, resident.last_class = None, request.request_class
        resident.limit_s = self._limits.stay_s(request.request_class)
        if request.keep_alive_s is not None:
            resident.keep_alive_s = request.keep_alive_s

    def note_urgency(self, model: str, now: float, *, is_urgent: bool) -> bool:
        """Interactive requests run or wait in it, or none do; True if that is news."""
        resident = self._residents[model]
        was_urgent, resident.is_urgent = resident.is_urgent, is_urgent
        if was_urgent or is_urgent:
            resident.urgent_at = now
        return was_urgent is not is_urgent

    def idle(self, model: str, now: float) -> None:
        """The last it ran has ended."""
        self._residents[model].idle_since = now

    def measured(self, model: str, num_bytes: int) -> None:
        """It holds so much now: more than it was charged counts, less may still grow."""
        if (resident := self._residents.get(model)) is not None:
            resident.num_bytes = max(resident.num_bytes, num_bytes)

    def unpin(self, model: str) -> None:
        """It is to end soon."""
        self._residents[model].is_pinned = False

    def ending(self, model: str) -> None:
        """Its process was told to end; until it has, its bytes are taken."""
        self._residents[model].is_ending = True

    def gone(self, model: str) -> None:
        """Its process is no more."""
        self._residents.pop(model, None)

    def forget(self, model: str) -> None:
        """What it takes to load it."""
        self._needs.pop(model, None)

    # --- what follows ---

    def resident(self, model: str) -> Resident | None:
        return self._residents.get(model)

    @property
    def num_bytes(self) -> int:
        """Charged to all residents."""
        return sum(resident.num_bytes for resident in self._residents.values())

    @property
    def next_expiry(self) -> float:
        return min((resident.expires_at for resident in self._residents.values()), default=math.inf)

    def expired(self, now: float) -> list[str]:
        return [name for name, resident in self._residents.items() if resident.expires_at <= now]

    def fits(self, model: str) -> bool:
        """Beside everything that is resident now."""
        return self._bytes_of(model) <= self.room.now - self.num_bytes

    def refusal(self, model: str) -> Error | None:
        """Why waiting would not help, if so: it fits not even once everybody else has gone."""
        if (own := self._needs.get(model, Needs()).refusal) is not None:
            return own
        needed = self._bytes_of(model)
        others = (one for one in self._residents.values() if one.model != model and not one.is_ending)
        pinned = sum(one.num_bytes for one in others if one.is_pinned)
        beside = f", of which pinned models hold {written(pinned)}" if pinned else ""
        if needed > self.room.most - pinned:
            limit, raising = self._limit(needed + pinned)
            return DoesNotFit(
                f"{model} needs {written(needed)}, and {limit}{beside}; {raising}lower the model's context, "
                "or take a smaller quantization",
                param="model",
            )
        if self.level is Level.CRITICAL:
            return NoMemory(f"the machine runs out of memory, so {model} is not loaded now")
        if needed > self.room.now - pinned:
            return NoMemory(
                f"{model} needs {written(needed)}, and other programs leave {written(self.room.now)} "
                f"free for models{beside}; close some, or set memory.budget"
            )
        return None

    def make_room(self, model: str, now: float, *, is_urgent: bool = True) -> Plan:
        """For a model that does not fit; an empty plan says that what happens already will do.

        `is_urgent` if interactive requests wait for it.
        """
        ending = sum(resident.num_bytes for resident in self._residents.values() if resident.is_ending)
        missing = self._bytes_of(model) + self.num_bytes - ending - self.room.now
        victims = self._cheapest(missing, now, is_urgent)
        if all(victim.is_free(now, is_urgent) for victim in victims):
            return Plan(stop=tuple(victim.model for victim in victims))
        # Another than these may be free before them.
        free_at = [one.free_at(is_urgent) for one in self._residents.values() if one.is_candidate]
        return Plan(
            hold=_held(victims, now, is_urgent),
            look_again_at=min((at for at in free_at if at > now), default=math.inf),
            is_urgent=is_urgent,
        )

    def idle_ones(self) -> list[str]:
        """Those that nobody would miss right now."""
        return [r.model for r in self._residents.values() if r.is_candidate and r.idle_since is not None]

    def surplus(self, now: float) -> tuple[str, ...]:
        """Idle models to end because all together hold more than they may."""
        held = [resident for resident in self._residents.values() if not resident.is_ending]
        over = sum(resident.num_bytes for resident in held) - self.room.kept
        idle = [r for r in held if r.is_candidate and r.idle_since is not None]
        return tuple(victim.model for victim in _enough(idle, over, now, is_urgent=True))

    def check(self) -> None:
        """Invariants: nobody is idle before it is ready."""
        for resident in self._residents.values():
            is_early = resident.ready_at is None and resident.idle_since is not None
            assert not is_early, f"{resident.model}: idle before it was ready"

    def _limit(self, wanted: int) -> tuple[str, str]:
        """What there is at most, and the advice to raise it, where it was set and the machine has so much."""
        most, settable = written(self.room.most), self.room.settable
        if settable is None:
            return f"this machine, less memory.reserve, has {most} for models", ""
        return f"memory.budget is {most}", f"raise it to {written_up(wanted)}, " if wanted < settable else ""

    def _bytes_of(self, model: str) -> int:
        return self._needs.get(model, Needs()).bytes_at_most

    def _cheapest(self, missing: int, now: float, is_urgent: bool) -> list[Resident]:
        """Those whose end brings the missing bytes; nobody, if some must finish loading first."""
        candidates = [resident for resident in self._residents.values() if resident.is_candidate]
        if sum(resident.num_bytes for resident in candidates) < missing:
            return []
        return _enough(candidates, missing, now, is_urgent)


def _enough(residents: list[Resident], num_bytes: int, now: float, is_urgent: bool) -> list[Resident]:
    """Those that hold so many bytes together, as far as they do: free ones first, the cheapest to lose before
    the others; then those whose turn ends first, but what is used interactively last.

    None of them could be left out.
    """

    def order(one: Resident) -> tuple[bool, bool, float, float]:
        if one.is_free(now, is_urgent):
            return False, False, now, one.loss(now)
        return True, one.is_urgent, one.turn_ends_at(is_urgent), one.loss(now)

    chosen: list[Resident] = []
    for resident in sorted(residents, key=order):
        if num_bytes <= sum(one.num_bytes for one in chosen):
            break
        chosen.append(resident)
    for resident in reversed(chosen.copy()):
        if sum(one.num_bytes for one in chosen) - resident.num_bytes >= num_bytes:
            chosen.remove(resident)
    return chosen


def _held(victims: list[Resident], now: float, is_urgent: bool) -> frozenset[str]:
    """Those that get nothing new, as their turn is over.

    All of them or nobody: a turn that goes on for as long as somebody chats may have no end. But for who is
    urgent every turn soon has one, so each begins at its own.
    """
    are_all_over = all(victim.free_at(is_urgent) <= now for victim in victims)
    held = [one for one in victims if are_all_over or (is_urgent and one.turn_ends_at(is_urgent) <= now)]
    return frozenset(victim.model for victim in held)
