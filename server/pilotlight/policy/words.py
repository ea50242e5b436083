"""Why something is restricted, what is done about it and what would end it, as a sentence for people.

Knows the words, not the decision.
"""

from collections.abc import Iterator, Sequence

from pilotlight.core import RequestClass
from pilotlight.policy.actions import Actions, Admit
from pilotlight.policy.conditions import Between, clock
from pilotlight.policy.facts import Facts
from pilotlight.policy.limits import ALL_THREADS, Threads
from pilotlight.policy.rules import Rule
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level as MemoryLevel

OVERRIDE = "send X-Policy-Override: 1"

HEAT = {ThermalLevel.FAIR: "warm", ThermalLevel.SERIOUS: "hot", ThermalLevel.CRITICAL: "too hot"}


def sentence(reading: Reading, rules: Sequence[Rule], actions: Actions, facts: Facts) -> str:
    """ "on battery at 14 %: small answers instead of large, at most 256 tokens; plug in, or send ..."."""
    about = {condition.about for rule in rules for condition in (*rule.when, *rule.unless)}
    why = " and ".join(_causes(reading, about)) or _named(rules)
    ways = list(_ways_out(reading, rules, about))
    if not (facts.request_class.yields or any(rule.is_critical for rule in rules)):
        ways.append(OVERRIDE)
    is_refused_by_rule = any(rule.on(facts.request_class).admit is Admit.REJECT for rule in rules)
    what = ", ".join(_effects(actions, facts, is_refused_by_rule))
    return "; ".join(filter(None, (f"{why}: {what}" if what else why, ", or ".join(ways))))


def _causes(reading: Reading, about: set[str]) -> Iterator[str]:
    """What the reading says of these fields, as far as it is bad."""
    yield from _power(reading, about)
    if about & {"thermal", "headroom", "forecast"}:
        level = HEAT.get(reading.thermal or ThermalLevel.NOMINAL)
        celsius = "" if reading.celsius is None else f" ({reading.celsius:.0f} degrees Celsius)"
        if level or (reading.headroom or 0) > 0:
            yield f"the machine is {level or 'warm'}{celsius}"
    if "memory" in about and reading.memory:
        yield f"memory is {'very ' if reading.memory is MemoryLevel.CRITICAL else ''}short"
    if "user_idle_s" in about and reading.user_idle_s is not None:
        yield "somebody is using the machine"
    if "load" in about and reading.load is not None:
        yield f"other programs use {reading.load:.0%} of the processors".replace("%", " %")
    if "minute" in about and reading.minute is not None:
        yield f"it is {clock(reading.minute)}"


def _power(reading: Reading, about: set[str]) -> Iterator[str]:
    charge = "" if reading.percent is None else f" at {reading.percent:.0f} %"
    if about & {"supply", "percent"}:
        if reading.supply is Supply.BATTERY:
            yield f"on battery{charge}"
        elif reading.supply is Supply.WEAK:
            yield f"on a supply that gives too little{', battery' if charge else ''}{charge}"
        elif "percent" in about and charge:
            yield f"the battery is{charge}"
    if "is_saving" in about and reading.is_saving:
        yield "power saving is on"


def _named(rules: Sequence[Rule]) -> str:
    """For rules that have no cause, or still hold though it is gone."""
    return "by the rule " + ", ".join(repr(rule.name) for rule in rules)


def _effects(actions: Actions, facts: Facts, is_refused_by_rule: bool) -> Iterator[str]:
    whose = (
        "requests" if facts.request_class is RequestClass.INTERACTIVE else f"{facts.request_class} requests"
    )
    if facts.is_strict and actions.degrades and not is_refused_by_rule:
        yield f"refused, because with X-Policy: strict nothing less will do; else {_less(actions, facts)}"
    elif actions.admit is Admit.REJECT:
        yield f"{whose} are refused"
    elif actions.admit is Admit.DEFER:
        yield f"{whose} wait"
    elif actions.degrades or actions.threads != ALL_THREADS:
        yield _less(actions, facts)
    elif actions.keep_alive_s is not None:
        yield f"models are unloaded after {actions.keep_alive_s:.0f} s"
    if actions.admit is Admit.NOW and actions.is_eco:
        yield f"{whose} run on low clocks while nothing else does"
    if actions.admit is Admit.NOW and actions.concurrency is not None:
        yield f"a model runs {actions.concurrency} of its {whose} side by side"


def _less(actions: Actions, facts: Facts) -> str:
    parts = []
    if actions.is_small:
        parts.append(f"{facts.small} answers instead of {facts.model}")
    if actions.max_tokens is not None:
        parts.append(f"at most {actions.max_tokens} tokens")
    if actions.is_reasoning_off:
        parts.append("without reasoning")
    if actions.context is not None:
        parts.append(f"prompt and answer within {actions.context} tokens")
    return ", ".join([*parts, *_threads(actions.threads)])


def _threads(threads: Threads) -> Iterator[str]:
    if threads.count is not None:
        yield f"at most {threads.count} thread{'s' if threads.count > 1 else ''}"
    if threads.part is not None:
        yield f"at most {100 * threads.part:.0f} % of the threads"
    if threads.is_efficient:
        yield "no more threads than pay"


def _ways_out(reading: Reading, rules: Sequence[Rule], about: set[str]) -> Iterator[str]:
    """What a person can do about it."""
    if about & {"supply", "percent"}:
        yield "use a stronger charger or supply" if reading.supply is Supply.WEAK else "plug in"
    if "is_saving" in about:
        yield "switch power saving off"
    if about & {"thermal", "headroom", "forecast"}:
        yield "let it cool down"
    if about & {"memory", "load"}:
        yield "close other programs"
    for rule in rules:
        for condition in rule.when:
            if isinstance(condition, Between):
                yield f"wait until {clock(condition.end)}"
