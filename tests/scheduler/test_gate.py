"""Who waits at the gate, for what and for how long; time passes by itself."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.errors import LONGEST_RETRY_S, BackgroundBlocked, BatteryFloor, Busy, ShuttingDown
from pilotlight.policy.actions import Actions, Admit
from pilotlight.policy.decide import Decision
from pilotlight.policy.facts import Facts
from pilotlight.policy.limits import Threads
from pilotlight.policy.settings import RuleSettings, rules_of
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level
from pilotlight.scheduler.gate import Gate, Policy, restricted
from virtual_clock import run_virtual

BACKGROUND = Facts(RequestClass.BACKGROUND)

ON_BATTERY = Reading(supply=Supply.BATTERY, percent=80.0)
LOW = Reading(supply=Supply.BATTERY, percent=14.0)
PLUGGED = Reading(supply=Supply.AC, percent=80.0)


class Machine:
    """Says what it was told to say, and when it was asked."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.looks = 0

    async def fresh(self, within_s: float) -> Reading:
        self.looks += 1
        return replace(self.reading, at=anyio.current_time())


def gate(machine: Machine, max_held: int = 4, preset: str = "balanced") -> Gate:
    return Gate(Policy(rules_of(preset, ())), machine, max_held)  # type: ignore[arg-type]  # a test's word


async def held(gate: Gate, then: Callable[[], Awaitable[None]]) -> Decision:
    """A background request that has to wait, while something happens."""
    decision = await gate.judge(BACKGROUND)
    assert decision.actions.admit is Admit.DEFER
    admitted: list[Decision] = []

    async def wait() -> None:
        admitted.append(await gate.admitted(decision))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert gate.held == 1
        await then()
    assert gate.held == 0
    return admitted[0]


def test_a_deferred_request_begins_once_it_may() -> None:
    """Half a minute after the plug is in, for it may be out again."""

    async def main() -> None:
        machine = Machine(ON_BATTERY)
        began = 0.0

        async def plug_in() -> None:
            nonlocal began
            began = anyio.current_time()
            machine.reading = PLUGGED

        decision = await held(gate(machine), plug_in)
        assert decision.actions.admit is Admit.NOW
        assert 28 <= anyio.current_time() - began <= 34

    run_virtual(main)


def test_every_deferral_ends() -> None:
    """With a refusal, after the time that the rule gives it."""

    async def main() -> None:
        rule = {"name": "minute", "when": {}, "background": {"admit": "defer", "max_wait": "1m"}}
        rules = rules_of("always", (RuleSettings.model_validate(rule),))
        waiting = Gate(Policy(rules), Machine(ON_BATTERY), max_held=4)
        began = anyio.current_time()
        with pytest.raises(BackgroundBlocked, match=r"waited for 60 s.* by the rule 'minute'"):
            await waiting.admitted(await waiting.judge(BACKGROUND))
        assert anyio.current_time() - began == pytest.approx(60)

    run_virtual(main)


def test_who_has_waited_for_longer_than_a_new_rule_lets_it_is_told_how_long() -> None:
    """The time that passed, beside what it may wait."""

    async def main() -> None:
        waiting = gate(Machine(ON_BATTERY))
        rule = {"name": "minute", "when": {}, "background": {"admit": "defer", "max_wait": "1m"}}
        shorter = Policy(rules_of("always", (RuleSettings.model_validate(rule),)))

        async def shorten() -> None:
            await anyio.sleep(300)
            waiting.follow(shorter)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shorten)
            with pytest.raises(BackgroundBlocked, match="waited for 300 s and may for at most 60 s: by the"):
                await waiting.admitted(await waiting.judge(BACKGROUND))

    run_virtual(main)


def test_who_waits_hears_what_is_judged_anew() -> None:
    """The charge falls while it does."""

    async def main() -> None:
        machine = Machine(ON_BATTERY)
        waiting = gate(machine)
        told: list[str] = []

        def tell(decision: Decision) -> None:
            told.append(decision.reason[11:18])
            machine.reading = replace(machine.reading, percent=(machine.reading.percent or 0) - 20)

        with pytest.raises(BackgroundBlocked):
            await waiting.admitted(await waiting.judge(BACKGROUND), tell)
        assert told == ["at 80 %", "at 60 %", "at 40 %", "at 20 %"]

    run_virtual(main)


def test_an_override_lets_everybody_in() -> None:
    """At once, and only for its time."""

    async def main() -> None:
        overridden = gate(Machine(ON_BATTERY))

        async def override() -> None:
            overridden.override(60)

        assert (await held(overridden, override)).facts.is_overridden
        await anyio.sleep(61)
        assert (await overridden.judge(BACKGROUND)).actions.admit is Admit.DEFER

    run_virtual(main)


@pytest.mark.parametrize(("asleep_s", "left_s"), [(600.0, 2400.0), (10 * 3600.0, 0.0), (-600.0, 3000.0)])
def test_an_override_goes_on_while_the_machine_sleeps(asleep_s: float, left_s: float) -> None:
    """The event loop's clock stands still meanwhile; a clock that is set back lengthens nothing."""

    async def main() -> None:
        wall_s = 0.0
        overridden = Gate(Policy(rules_of("balanced", ())), Machine(ON_BATTERY), 4, wall_time=lambda: wall_s)
        overridden.override(3600)
        await anyio.sleep(600)
        wall_s = 600 + asleep_s
        assert overridden.override_left_s == pytest.approx(left_s)

    run_virtual(main)


def test_one_that_waits_is_refused_when_it_gets_worse() -> None:
    """It is judged anew with every reading."""

    async def main() -> None:
        machine = Machine(ON_BATTERY)
        waiting = gate(machine)
        decision = await waiting.judge(BACKGROUND)
        machine.reading = LOW
        with pytest.raises(BackgroundBlocked, match="on battery at 14 %"):
            await waiting.admitted(decision)

    run_virtual(main)


def test_so_many_wait_and_no_more() -> None:
    """And nobody does when the daemon ends."""

    async def main() -> None:
        full = gate(Machine(ON_BATTERY), max_held=0)
        decision = await full.judge(BACKGROUND)
        with pytest.raises(Busy):
            await full.admitted(decision)
        ending = gate(Machine(ON_BATTERY))
        ending.close()
        with pytest.raises(ShuttingDown):
            await ending.admitted(decision)

    run_virtual(main)


def test_retry_after_is_told_only_when_it_is_true() -> None:
    """While the rule that refuses is about to end; else nobody knows."""

    async def main() -> None:
        machine = Machine(LOW)
        refusing = gate(machine)
        strict = Facts(small="tiny", is_strict=True)
        refusal = refusing.refusal(await refusing.judge(strict))
        assert isinstance(refusal, BatteryFloor) and refusal.retry_after_s is None
        machine.reading = PLUGGED
        await anyio.sleep(10)
        refusal = refusing.refusal(await refusing.judge(strict))
        assert refusal.retry_after_s is not None and 0 < refusal.retry_after_s <= LONGEST_RETRY_S
        await anyio.sleep(refusal.retry_after_s)
        assert (await refusing.judge(strict)).actions.admit is Admit.NOW

    run_virtual(main)


def test_what_only_defers_does_not_keep_it_refused() -> None:
    """When heat ends, it waits for the plug, and is refused no more."""

    async def main() -> None:
        machine = Machine(replace(ON_BATTERY, thermal=ThermalLevel.CRITICAL))
        refusing = gate(machine)
        await refusing.judge(BACKGROUND)
        machine.reading = ON_BATTERY
        await anyio.sleep(10)
        refusal = refusing.refusal(await refusing.judge(BACKGROUND))
        assert refusal.retry_after_s is not None

    run_virtual(main)


def test_what_is_known_no_more_restricts_no_more() -> None:
    """A sensor that went silent: its rules end like others."""

    async def main() -> None:
        silent = gate(Machine(LOW))
        assert (await silent.judge(BACKGROUND)).fired
        silent._readings = Stuck(Reading(at=anyio.current_time()))
        await anyio.sleep(20)
        await silent.judge(BACKGROUND)
        await anyio.sleep(31)
        assert not (await silent.judge(BACKGROUND)).fired

    run_virtual(main)


class Stuck(Machine):
    async def fresh(self, within_s: float) -> Reading:
        return self.reading


def test_an_override_frees_threads_but_for_what_is_critical() -> None:
    """Rules limit those of a class; one request may set aside what is short of critical."""

    async def main() -> None:
        rules: list[dict[str, Any]] = [
            {"name": "battery", "when": {"supply": "battery"}, "any": {"threads": 2}},
            {"name": "heat", "when": {"thermal": "critical"}, "any": {"threads": 3}},
        ]
        known = rules_of("always", tuple(map(RuleSettings.model_validate, rules)))
        machine = Machine(replace(LOW, thermal=ThermalLevel.CRITICAL))
        orders = Gate(Policy(known), machine, max_held=4).orders(await machine.fresh(0))
        request = Request("r", "m", Prompt(messages=()), Sampling())
        assert orders.threads_for(request) == Threads(2)
        assert orders.threads_for(replace(request, is_overridden=True)) == Threads(3)

    run_virtual(main)


def test_what_runs_gets_its_orders() -> None:
    """In the background it rests when none might begin; an answer ends only in what is critical."""

    async def main() -> None:
        machine = Machine(PLUGGED)
        ordering = gate(machine)
        hot = replace(PLUGGED, thermal=ThermalLevel.CRITICAL)
        for reading, holds, ends in ((PLUGGED, False, 0), (LOW, True, 0), (hot, True, 3)):
            await anyio.sleep(5)
            machine.reading = reading
            ordering.orders(await machine.fresh(0))
            await anyio.sleep(5)
            orders = ordering.orders(await machine.fresh(0))
            assert (len(orders.held), len(orders.refusals)) == (2 * holds, ends)

    run_virtual(main)


def test_what_runs_ends_only_where_the_critical_rule_refuses() -> None:
    """An empty battery refuses answers, and those there are go on; memory that is critically short ends what
    nobody waits for."""

    async def main() -> None:
        ordering = gate(Machine(PLUGGED), preset="battery")
        bad = Reading(supply=Supply.BATTERY, percent=5.0, memory=Level.CRITICAL)
        orders = ordering.orders(replace(bad, at=anyio.current_time()))
        assert set(orders.refusals) == {RequestClass.BACKGROUND, RequestClass.BATCH}
        assert set(orders.held) == {RequestClass.BACKGROUND, RequestClass.BATCH}

    run_virtual(main)


def test_what_is_paused_for_too_long_ends() -> None:
    """After the time that the rule gives to what waits; a pause that was over in between does not count."""

    async def main() -> None:
        rule = {"name": "on battery", "when": {"supply": "battery"}}
        waits = {
            one: {"admit": "defer", "max_wait": wait} for one, wait in (("background", "1h"), ("batch", "3h"))
        }
        ordering = Gate(
            Policy(rules_of("balanced", (RuleSettings.model_validate(rule | waits),))),
            Machine(PLUGGED),
            max_held=4,
        )
        ended = []
        for reading in (ON_BATTERY, PLUGGED, ON_BATTERY, ON_BATTERY, ON_BATTERY, ON_BATTERY):
            await anyio.sleep(3600)
            orders = ordering.orders(replace(reading, at=anyio.current_time()))
            ended.append([one.value for one in orders.refusals])
        assert ended == [[], [], [], ["background"], ["background"], ["background", "batch"]]
        refusal = orders.refusals[RequestClass.BACKGROUND]
        assert refusal.message.startswith(
            "it was paused for 10800 s and may be for at most 3600 s: on battery"
        )

    run_virtual(main)


def test_a_class_rests_by_its_own_rules() -> None:
    """As on battery with the rule of the README that lets background work run, and batches not; once it is
    low, nothing goes on."""

    async def main() -> None:
        rule = {"name": "on battery", "when": {"supply": "battery"}, "background": {"clock": "eco"}}
        waits = {"batch": {"admit": "defer", "max_wait": "1h"}}
        rules = rules_of("balanced", (RuleSettings.model_validate(rule | waits),))
        ordering = Gate(Policy(rules), Machine(PLUGGED), max_held=4)
        for reading, held in ((ON_BATTERY, ["batch"]), (LOW, ["background", "batch"])):
            await anyio.sleep(60)
            ordering.orders(replace(PLUGGED, at=anyio.current_time()))
            await anyio.sleep(60)
            orders = ordering.orders(replace(reading, at=anyio.current_time()))
            assert sorted(orders.held) == held
        await anyio.sleep(3600)
        orders = ordering.orders(replace(LOW, at=anyio.current_time()))
        assert list(orders.refusals) == [RequestClass.BATCH]

    run_virtual(main)


def test_batches_rest_when_the_battery_is_low() -> None:
    """Whatever lets them run above that."""

    async def main() -> None:
        rule = {"name": "on battery", "when": {"supply": "battery"}, "any": {"keep_alive": "5m"}}
        rules = rules_of("balanced", (RuleSettings.model_validate(rule),))
        ordering = Gate(Policy(rules), Machine(PLUGGED), max_held=4)
        assert not ordering.orders(replace(ON_BATTERY, at=anyio.current_time())).held
        await anyio.sleep(5)
        ordering.orders(replace(LOW, at=anyio.current_time()))
        await anyio.sleep(5)
        orders = ordering.orders(replace(LOW, at=anyio.current_time()))
        assert set(orders.held) == {RequestClass.BACKGROUND, RequestClass.BATCH}

    run_virtual(main)


def test_a_weak_charger_is_weak_for_a_while() -> None:
    """With our own work held it is enough, and would be weak again at once. Who pulls it may have a better
    one; a plug that is put in looks like a weak one for a moment, and is none."""

    async def main() -> None:
        ordering = gate(Machine(PLUGGED))
        weak = replace(PLUGGED, supply=Supply.WEAK)

        async def rests(reading: Reading, seconds: int) -> bool:
            for _ in range(seconds):
                await anyio.sleep(1)
                orders = ordering.orders(replace(reading, at=anyio.current_time()))
            return bool(orders.held)

        assert not await rests(PLUGGED, 5)
        assert await rests(weak, 5)
        assert await rests(PLUGGED, 500), "no work, no drain"
        assert not await rests(PLUGGED, 200)
        assert await rests(weak, 5)
        assert await rests(ON_BATTERY, 5)
        assert await rests(weak, 5)
        assert not await rests(PLUGGED, 40)

    run_virtual(main)


def test_a_belief_in_a_weak_charger_does_not_renew_itself() -> None:
    """By rules that begin under it while the charger is strong enough."""

    async def main() -> None:
        rules: list[dict[str, Any]] = [
            {"name": "weak", "when": {"supply": "ac-weak"}, "background": {"admit": "defer"}},
            {"name": "here", "when": {"supply": "ac-weak", "active_within": "5m"}, "any": {"threads": 2}},
        ]
        known = rules_of("always", tuple(map(RuleSettings.model_validate, rules)))
        ordering = Gate(Policy(known), Machine(PLUGGED), max_held=4)
        for reading in [PLUGGED] * 5 + [replace(PLUGGED, supply=Supply.WEAK)] * 5:
            await anyio.sleep(1)
            ordering.orders(replace(reading, at=anyio.current_time()))
        for second in range(700):
            await anyio.sleep(1)
            idle_s = 0.0 if second % 120 < 60 else 1000.0
            orders = ordering.orders(replace(PLUGGED, user_idle_s=idle_s, at=anyio.current_time()))
        assert not orders.held

    run_virtual(main)


def test_rules_that_stay_go_on_when_the_settings_are_read_again() -> None:
    """Whatever they restrict from now on: they do not begin again, and end as slowly as ever. One that goes
    ends, one with other conditions ends and begins."""

    async def main() -> None:
        told: list[tuple[str, bool]] = []
        supply: dict[str, Any] = {"when": {"supply": "battery"}, "any": {"threads": 2}}
        charge: dict[str, Any] = {"when": {"battery_below": 90}, "any": {"threads": 2}}

        def policy(**rules: dict[str, Any]) -> Policy:
            named = [RuleSettings.model_validate({"name": name, **rule}) for name, rule in rules.items()]
            return Policy(rules_of("always", tuple(named)))

        machine = Machine(ON_BATTERY)
        before = policy(a=supply, b=charge, c=supply)
        telling = Gate(before, machine, 4, tell=lambda name, begins: told.append((name, begins)))
        await telling.judge(BACKGROUND)
        await anyio.sleep(60)
        await telling.judge(BACKGROUND)
        del told[:]
        fewer, lower = {"any": {"threads": 1}}, {"when": {"battery_below": 85}}
        telling.follow(policy(a=supply | fewer, b=charge | lower))
        assert told == [("b", False), ("c", False)]
        assert [(one.name, one.is_in_force, one.for_s) for one in telling.rules()] == [("a", True, 60)]
        machine.reading = replace(PLUGGED, percent=80.0)
        await telling.judge(BACKGROUND)
        assert told[2:] == [("b", True)]
        (ends_in_s,) = [one.ends_in_s for one in telling.rules() if one.name == "a"]
        assert ends_in_s == 30

    run_virtual(main)


def test_a_pause_goes_on_when_the_settings_are_read_again() -> None:
    """Else who reads them often enough has it last for ever."""

    async def main() -> None:
        rule = {"name": "on battery", "when": {"supply": "battery"}}
        waits = {"background": {"admit": "defer", "max_wait": "1h"}}
        policy = Policy(rules_of("always", (RuleSettings.model_validate(rule | waits),)))
        ordering = Gate(policy, Machine(PLUGGED), max_held=4)
        ended = []
        for _ in range(3):
            await anyio.sleep(1800)
            ended.append(bool(ordering.orders(replace(ON_BATTERY, at=anyio.current_time())).refusals))
            ordering.follow(policy)
        assert ended == [False, False, True]

    run_virtual(main)


def test_how_many_run_side_by_side_is_an_order() -> None:
    """By class; for a request that overrides the policy only what is critical counts."""

    async def main() -> None:
        rule = {"name": "few", "when": {}, "any": {"concurrency": 3}, "batch": {"concurrency": 1}}
        rules = rules_of("balanced", (RuleSettings.model_validate(rule),))
        ordering = Gate(Policy(rules), Machine(PLUGGED), max_held=4)
        limits = ordering.orders(replace(PLUGGED, at=anyio.current_time())).limits
        assert limits.concurrency == {
            (RequestClass.INTERACTIVE, False): 3,
            (RequestClass.BACKGROUND, False): 3,
            (RequestClass.BATCH, False): 1,
        }
        short = replace(PLUGGED, at=anyio.current_time() + 5, memory=Level.CRITICAL)
        assert ordering.orders(short).limits.concurrency[RequestClass.INTERACTIVE, True] == 1
        ordering.override(60)
        limits = ordering.orders(short).limits
        assert limits.concurrency == {(RequestClass.INTERACTIVE, one): 1 for one in (False, True)}

    run_virtual(main)


def test_how_long_models_stay_is_an_order() -> None:
    """The tightest of what holds; and it is known which times there are."""

    async def main() -> None:
        ordering = gate(Machine(LOW))
        assert ordering.keep_alives == [0, 60, 300]
        limits = ordering.orders(replace(ON_BATTERY, at=anyio.current_time())).limits
        assert limits.keep_alive_s == dict.fromkeys(RequestClass, 300)
        limits = ordering.orders(replace(LOW, at=anyio.current_time() + 5)).limits
        assert limits.keep_alive_s[RequestClass.INTERACTIVE] == 60

    run_virtual(main)


def test_a_policy_that_is_off_looks_at_nothing() -> None:
    """Not even once."""

    async def main() -> None:
        machine = Machine(LOW)
        assert not (await gate(machine, preset="off").judge(BACKGROUND)).fired
        assert machine.looks == 0

    run_virtual(main)


def test_a_request_is_done_as_restricted() -> None:
    """The tighter limit counts, the client's or the rule's; what it samples with is its own."""
    request = Request("r", "m", Prompt(messages=()), Sampling(temperature=0.3), max_tokens=100)
    actions = Actions(is_reasoning_off=True, max_tokens=256, context=512)
    done = restricted(request, actions)
    assert (done.max_tokens, done.context) == (100, 512)
    assert done.prompt.template_kwargs == {"enable_thinking": False}
    assert done.sampling == request.sampling
    assert restricted(request, Actions()) is request
