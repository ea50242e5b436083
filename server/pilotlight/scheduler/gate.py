"""The gate that every request passes before it is queued: asks the policy, and holds who has to wait.

Owns which rules are in force and an override's end. It looks at the machine when a request comes, and again
every `RECHECK_S` while one is held; who looks while work runs gets its orders for that. Single event loop.
"""

import math
import time
from collections.abc import Callable, Mapping, Set
from typing import Protocol

import anyio
import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from pilotlight.core import Request, RequestClass
from pilotlight.errors import (
    BackgroundBlocked,
    BatteryFloor,
    Busy,
    MemoryPressure,
    Restricted,
    ShuttingDown,
    ThermalCritical,
    retry_after,
)
from pilotlight.policy.actions import NONE, Actions, Admit
from pilotlight.policy.decide import Cause, Decision, decide
from pilotlight.policy.facts import Facts
from pilotlight.policy.hysteresis import Hysteresis, InForce
from pilotlight.policy.limits import ALL_THREADS, Threads, least
from pilotlight.policy.rules import Rule
from pilotlight.power.reading import Reading, Supply
from pilotlight.scheduler.limits import Limits

RECHECK_S = 2.0

PATIENCE_S = 0.25
"""A look takes milliseconds; a request does not wait for a driver that hangs."""

LONGEST_PAUSE_S = 8 * 3600.0
"""Of what runs in the background, where the rule that pauses it gives no `max_wait`."""

WEAK_S = 600.0
"""For so long a charger that was too weak for what we do is taken for weak, unless it is pulled: with our
work held it is enough, and without that it would be too weak again within seconds."""

STALE_S = 10.0
"""What is older says nothing any more, and what it said ends."""

REFUSALS = {
    Cause.MEMORY: MemoryPressure,
    Cause.THERMAL: ThermalCritical,
    Cause.BATTERY: BatteryFloor,
    Cause.BACKGROUND: BackgroundBlocked,
    Cause.RULE: Restricted,
}

log = structlog.get_logger()


class Readings(Protocol):
    """Who knows the machine; `power.sampling.Sampler` does."""

    async def fresh(self, within_s: float) -> Reading:
        """What is known now; waits for a look at the machine so long at most."""


class Policy(Struct, frozen=True):
    """The rules there are, and how fast they begin and end."""

    rules: tuple[Rule, ...]
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    gives_way: bool = True
    """Workers that only have what yields make way for other programs, whatever the rules."""


class Ruling(Struct, frozen=True):
    """A rule for people: how long it has held, and when it begins or ends if that is known."""

    name: str
    is_in_force: bool
    for_s: float | None
    begins_in_s: float | None
    ends_in_s: float | None


class Orders(Struct, frozen=True):
    """What is done with requests that run: those of some classes are held, of others end; and so many threads
    compute them. And what bounds the scheduler has."""

    held: Mapping[RequestClass, str] = field(default_factory=dict)
    """Classes that are not to be computed now, and why; all of them yield. A worker holds all that yields or
    nothing, so it does only what runs beside one that may go on."""
    refusals: Mapping[RequestClass, Restricted] = field(default_factory=dict)
    threads: Mapping[RequestClass, Threads] = field(default_factory=dict)
    threads_overridden: Threads = ALL_THREADS
    """For interactive requests that override the policy: what is critical counts for them, too."""
    limits: Limits = field(default_factory=Limits)
    gives_way: bool = True
    """See `Policy`."""
    eco: frozenset[RequestClass] = frozenset()
    """While nothing but these run, low clocks will do."""

    def threads_for(self, request: Request) -> Threads:
        """At most."""
        if request.is_overridden:
            return self.threads_overridden
        return self.threads.get(request.request_class, ALL_THREADS)


class Gate:
    """At most `max_held` requests wait here; `tell` hears of rules that begin to hold (True) or end."""

    def __init__(
        self,
        policy: Policy,
        readings: Readings,
        max_held: int,
        tell: Callable[[str, bool], None] = lambda rule, begins: None,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._tell = tell
        self._wall_time = wall_time
        self.in_force = InForce()
        self.held = 0
        self._readings = readings
        self._max_held = max_held
        self._override_until = self._override_until_by_wall = -math.inf
        """The event loop's clock stands still while the machine sleeps, and the other one can be set back."""
        self._paused_at: Mapping[RequestClass, float] = {}
        """When those that rest now were told to."""
        self._weak_until = -math.inf
        """Until then a charger is believed to be too weak."""
        self._is_closed = False
        self._changed = anyio.Event()

    async def judge(self, facts: Facts) -> Decision:
        """What is done with a request now."""
        if not self._policy.rules:
            return Decision(facts, Reading())
        reading = self._step(await self._readings.fresh(PATIENCE_S))
        return self._decide(reading, facts)

    async def admitted(
        self, decision: Decision, tell: Callable[[Decision], None] = lambda decision: None
    ) -> Decision:
        """Returns once a deferred request may begin, with what is done with it then; until then, `tell` hears
        every decision that has it wait.

        Raises the refusal if it no longer may, or has waited for as long as a rule lets it; `Busy` if too
        many wait.
        """
        if self.held >= self._max_held:
            raise Busy(
                f"{self.held} requests wait for the policy; at most {self._max_held} may (server.queue)"
            )
        began, facts = anyio.current_time(), decision.facts
        self.held += 1
        try:
            while decision.actions.admit is Admit.DEFER:
                tell(decision)
                await self._wait(began, decision)
                decision = await self.judge(facts)
        finally:
            self.held -= 1
        if decision.actions.admit is Admit.REJECT:
            raise self.refusal(decision)
        return decision

    async def until_free(self, facts: Facts) -> None:
        """Returns once such a request might begin; whoever waits has a deadline of their own."""
        while (await self.judge(facts)).actions.admit is not Admit.NOW:
            with anyio.move_on_after(RECHECK_S):
                await self._changed.wait()

    def orders(self, reading: Reading) -> Orders:
        """What follows from a reading for what runs already: what yields rests as long as none of its class
        might begin, and ends when that was for too long; only what is critical ends anything else."""
        if not self._policy.rules:
            return Orders(gives_way=self._policy.gives_way)
        reading = self._step(reading)
        decisions = {one: self._decide(reading, Facts(one)) for one in RequestClass}
        ending = {
            one: self.refusal(decision)
            for one, decision in decisions.items()
            if any(rule.is_critical for rule in decision.refusing)
        }
        held = {
            one: decision.reason
            for one, decision in decisions.items()
            if one.yields and decision.actions.admit is not Admit.NOW
        }
        now = anyio.current_time()
        self._paused_at = {one: self._paused_at.get(one, now) for one in held}
        overridden = self._decide(reading, Facts(is_overridden=True))
        eco = [one for one, decision in decisions.items() if decision.actions.is_eco]
        return Orders(
            held=held,
            refusals={**self._overdue(decisions), **ending},
            threads={one: decision.actions.threads for one, decision in decisions.items()},
            threads_overridden=overridden.actions.threads,
            limits=self._limits(reading),
            gives_way=self._policy.gives_way,
            # Where the user saves power there is nothing to be held.
            eco=frozenset(() if reading.is_saving else eco),
        )

    def refusal(self, decision: Decision) -> Restricted:
        """The error that tells why, and when to try again if that is known."""
        assert decision.cause is not None, "only what is refused has a cause"
        return REFUSALS[decision.cause](decision.reason, retry_after_s=retry_after(self.ends_in_s(decision)))

    def ends_in_s(self, decision: Decision) -> float | None:
        """Seconds until it is no more refused if nothing gets worse; None if that is not known."""
        ends = [self.in_force.ends_in_s(rule, self._policy.hysteresis) for rule in decision.blocking]
        known = [end for end in ends if end is not None]
        return max(known) if known and len(known) == len(ends) else None

    @property
    def keep_alives(self) -> list[float]:
        """For how long rules let models stay without work, each once."""
        actions = [one for rule in self._policy.rules for one in rule.actions.values()]
        return sorted({one.keep_alive_s for one in actions if one.keep_alive_s is not None})

    # --- for the person at the machine ---

    def rules(self) -> list[Ruling]:
        """Those in force, and those about to begin."""
        now, hysteresis = anyio.current_time(), self._policy.hysteresis
        return [
            Ruling(
                rule.name,
                is_in_force=(began := self.in_force.since.get(rule.name)) is not None,
                for_s=None if began is None else round(now - began, 1),
                begins_in_s=self.in_force.begins_in_s(rule, hysteresis),
                ends_in_s=self.in_force.ends_in_s(rule, hysteresis),
            )
            for rule in self._policy.rules
            if rule.name in self.in_force.since or rule.name in self.in_force.turning
        ]

    @property
    def override_left_s(self) -> float:
        """Seconds for which nothing short of critical counts."""
        left_s = self._override_until - anyio.current_time()
        return max(0.0, min(left_s, self._override_until_by_wall - self._wall_time()))

    @property
    def is_free(self) -> bool:
        """Nothing is to be restricted: there are no rules (`preset = "off"`), or somebody overrides them."""
        return not self._policy.rules or self.override_left_s > 0

    def override(self, ttl_s: float) -> None:
        """For so long, nothing short of critical counts; 0 ends it."""
        self._override_until = anyio.current_time() + ttl_s
        self._override_until_by_wall = self._wall_time() + ttl_s
        log.info("policy overridden", ttl_s=ttl_s)
        self._wake()

    def follow(self, policy: Policy) -> None:
        """Other rules from now on. Those that depend on what they did before go on; which others hold is what
        the next reading says alone."""
        before, self._policy = self._policy.rules, policy
        self._turn(self.in_force.carried(before, policy.rules))
        # Without rules nobody looks at what rests, and all of it goes on.
        self._paused_at = self._paused_at if policy.rules else {}
        self._wake()

    def close(self) -> None:
        """Who waits is told that the daemon ends."""
        self._is_closed = True
        self._wake()

    # --- how it is done ---

    def _decide(self, reading: Reading, facts: Facts) -> Decision:
        if self.override_left_s > 0:
            facts = replace(facts, is_overridden=True)
        return decide(reading, self._policy.rules, facts, self.in_force)

    def _overdue(self, decisions: Mapping[RequestClass, Decision]) -> Mapping[RequestClass, Restricted]:
        """Classes whose requests have rested for as long as they may."""
        now, overdue = anyio.current_time(), {}
        for one, paused_at in self._paused_at.items():
            paused_s, limit = now - paused_at, decisions[one].actions.max_wait_s
            limit = LONGEST_PAUSE_S if limit is None else limit
            if paused_s >= limit:
                text = f"it was paused for {paused_s:.0f} s and may be for at most {limit:.0f} s"
                overdue[one] = BackgroundBlocked(f"{text}: {decisions[one].reason}")
        return overdue

    def _limits(self, reading: Reading) -> Limits:
        actions = {
            (one, is_overriding): self._decide(reading, Facts(one, is_overridden=is_overriding)).actions
            for one in RequestClass
            for is_overriding in (False, True)
        }
        stays = {one: actions[one, False].keep_alive_s for one in RequestClass}
        return Limits(
            {who: each.concurrency for who, each in actions.items() if each.concurrency is not None},
            {one: keep_alive_s for one, keep_alive_s in stays.items() if keep_alive_s is not None},
        )

    def _believed(self, reading: Reading) -> Reading:
        """See `WEAK_S`."""
        if reading.supply is Supply.BATTERY:
            self._weak_until = -math.inf
        is_weak = reading.supply is Supply.AC and reading.at < self._weak_until
        return replace(reading, supply=Supply.WEAK) if is_weak else reading

    def _step(self, read: Reading) -> Reading:
        """What is believed of a reading; which rules are in force by that."""
        believed, now = self._believed(read), anyio.current_time()
        reading = replace(believed, at=now) if now - believed.at > STALE_S else believed
        if reading.at <= self.in_force.at:
            return believed  # it was looked at before
        begun = self._turn(self.in_force.step(self._policy.rules, reading, self._policy.hysteresis))
        about = {
            condition.about for rule in self._policy.rules if rule.name in begun for condition in rule.when
        }
        # Not what is believed, or one rule after another would have it believed for ever.
        if read.supply is Supply.WEAK and "supply" in about:
            self._weak_until = reading.at + WEAK_S
        return believed

    def _turn(self, in_force: InForce) -> Set[str]:
        """These are in force from now on; returns which have begun."""
        before, after = self.in_force.since.keys(), in_force.since.keys()
        self.in_force = in_force
        for name in sorted(after ^ before):
            log.info("policy rule begins" if name in after else "policy rule ends", rule=name)
            self._tell(name, name in after)
        if after != before:
            self._wake()
        return after - before

    async def _wait(self, began: float, decision: Decision) -> None:
        """Until it is time to look again. Raises when there has been waiting enough."""
        limit, now = decision.actions.max_wait_s, anyio.current_time()
        deadline = began + (math.inf if limit is None else limit)
        if self._is_closed:
            raise ShuttingDown("the daemon is shutting down")
        if now >= deadline:
            raise BackgroundBlocked(
                f"it has waited for {now - began:.0f} s and may for at most {limit:.0f} s: {decision.reason}"
            )
        with anyio.move_on_at(min(deadline, now + RECHECK_S)):
            await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


def restricted(request: Request, actions: Actions) -> Request:
    """The request as it may be done; which model answers is not decided here, and `Limits` are orders."""
    if actions == NONE:
        return request
    prompt = request.prompt
    if actions.is_reasoning_off:
        prompt = replace(prompt, template_kwargs={**prompt.template_kwargs, "enable_thinking": False})
    return replace(
        request,
        prompt=prompt,
        max_tokens=least(request.max_tokens, actions.max_tokens),
        context=actions.context,
    )
