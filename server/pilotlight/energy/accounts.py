"""What was counted for one request, and for all of a worker's. Pure bookkeeping; knows no meter."""

from dataclasses import dataclass, field

from msgspec import Struct

from pilotlight.core import Request
from pilotlight.energy.meters import Method
from pilotlight.worker.protocol import Computed


class Energy(Struct, frozen=True):
    """What computing a request took, as the meter of `method` counted it; if none did, only the `reason`.

    See `meters` for methods and scopes.
    """

    method: str
    scope: str | None = None
    prefill_joules: float | None = None
    decode_joules: float | None = None
    share: float | None = None
    """Of what the meter counted from the request's begin to its end."""
    battery_percent: float | None = None
    """Of what the batteries hold when full, where they gave it."""
    reason: str | None = None


@dataclass(slots=True)
class Counted:
    """Joules of one method, and the tokens that were computed with them."""

    prefill_joules: float = 0.0
    decode_joules: float = 0.0
    prefill_tokens: int = 0
    decode_tokens: int = 0

    @property
    def joules(self) -> float:
        return self.prefill_joules + self.decode_joules

    def add(self, part: Computed, joules: float) -> None:
        """For the computing of `part`: by the seconds that its prefill and its decode took."""
        prefill = joules * part.prefill_s / part.seconds
        self.prefill_joules += prefill
        self.decode_joules += joules - prefill
        self.prefill_tokens += part.prefill_tokens
        self.decode_tokens += part.decode_tokens


@dataclass(slots=True)
class Account:
    """One request that is in a worker."""

    request: Request
    began_at: float
    metered_before: dict[Method, float]
    """What each meter had counted when it began."""
    counted: dict[Method, Counted] = field(default_factory=dict)
    missed: set[Method] = field(default_factory=set)
    """Meters that could not tell for some of its time."""

    def add(self, method: Method, part: Computed, joules: float) -> None:
        self.counted.setdefault(method, Counted()).add(part, joules)

    def found(self, method: Method) -> Counted | None:
        """None if the meter did not count all of it."""
        return None if method in self.missed else self.counted.get(method)


@dataclass(slots=True)
class Bench:
    """A worker and its requests, while it has some; the `pool` is what was counted since it last told what
    it computed."""

    pid: int
    accounts: dict[int, Account] = field(default_factory=dict)
    num_paused: int = 0
    pool: dict[Method, float] = field(default_factory=dict)
    missed: set[Method] = field(default_factory=set)
    cpu_s: float | None = None
    """Processor time it had used when that was last looked at."""

    @property
    def is_computing(self) -> bool:
        """What yields is paused all at once, and nothing else is."""
        return not self.num_paused or any(not account.request.yields for account in self.accounts.values())
