"""Readings and rules for tests: typed in, or drawn by hypothesis."""

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from pilotlight.core import RequestClass
from pilotlight.policy.actions import Actions, Admit
from pilotlight.policy.conditions import (
    ActiveWithin,
    BatteryBelow,
    Between,
    Condition,
    HeadroomAbove,
    IsSaving,
    LoadAbove,
    MemoryIs,
    SupplyIs,
    ThermalIs,
)
from pilotlight.policy.facts import Facts
from pilotlight.policy.limits import Threads
from pilotlight.policy.rules import Rule
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.pressure import Level as MemoryLevel

WORSE: dict[str, Any] = {
    "supply": lambda one: list(Supply).index(one),
    "percent": lambda percent: -percent,
    "is_saving": int,
    "headroom": float,
    "forecast": float,
    "thermal": int,
    "memory": int,
    "user_idle_s": lambda seconds: -seconds,
    "load": float,
}
"""The fields that rules look at, and how bad a value is; `minute` is neither better nor worse."""

MINUTES = st.integers(0, 24 * 60 - 1)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "supply": st.sampled_from(Supply),
    "percent": st.floats(0, 100),
    "is_saving": st.booleans(),
    "headroom": st.floats(0, 1.5),
    "forecast": st.floats(0, 1.5),
    "thermal": st.sampled_from(ThermalLevel),
    "memory": st.sampled_from(MemoryLevel),
    "user_idle_s": st.floats(0, 3600),
    "load": st.floats(0, 1),
}

CONDITIONS: st.SearchStrategy[Condition] = st.one_of(
    st.builds(SupplyIs, st.sampled_from([Supply.WEAK, Supply.BATTERY])),
    st.builds(BatteryBelow, st.floats(1, 100)),
    st.just(IsSaving()),
    st.builds(ThermalIs, st.sampled_from(list(ThermalLevel)[1:])),
    st.builds(HeadroomAbove, st.floats(0.1, 1.5), st.sampled_from(["headroom", "forecast"])),
    st.builds(MemoryIs, st.sampled_from(list(MemoryLevel)[1:])),
    st.builds(LoadAbove, st.floats(0, 1)),
    st.builds(ActiveWithin, st.floats(1, 3600)),
    st.builds(Between, MINUTES, MINUTES),
)

LIMITS = st.none() | st.integers(1, 4096)

ACTIONS = st.builds(
    Actions,
    admit=st.sampled_from(Admit),
    max_wait_s=st.none() | st.floats(0, 1e6),
    is_small=st.booleans(),
    is_reasoning_off=st.booleans(),
    max_tokens=LIMITS,
    context=LIMITS,
    is_eco=st.booleans(),
    concurrency=LIMITS,
    keep_alive_s=st.none() | st.floats(0, 1e6),
    threads=st.builds(
        Threads, st.none() | st.integers(1, 64), st.none() | st.floats(0.01, 0.99), st.booleans()
    ),
)

FACTS = st.builds(
    Facts,
    request_class=st.sampled_from(RequestClass),
    model=st.just("large"),
    small=st.sampled_from([None, "tiny"]),
    max_tokens=LIMITS,
    is_strict=st.booleans(),
    is_overridden=st.booleans(),
    has_live_threads=st.booleans(),
)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    """Anything may be unknown."""
    known = {name: draw(st.none() | values) for name, values in VALUES.items()}
    return Reading(minute=draw(st.none() | MINUTES), **known)


@st.composite
def worse(draw: st.DrawFn, reading: Reading) -> Reading:
    """One that is better in no field; what was unknown may be known."""
    changes = {}
    for name, badness in WORSE.items():
        value, other = getattr(reading, name), draw(st.none() | VALUES[name])
        if other is not None and (value is None or badness(other) >= badness(value)):
            changes[name] = other
    return replace(reading, **changes)


@st.composite
def rules(draw: st.DrawFn, fewest_conditions: int = 0) -> tuple[Rule, ...]:
    """Up to six, as no file could be stranger."""
    conditions = st.lists(CONDITIONS, min_size=fewest_conditions, max_size=3).map(tuple)
    actions = st.fixed_dictionaries(dict.fromkeys(RequestClass, ACTIONS))
    return tuple(
        Rule(f"rule {number}", draw(conditions), draw(actions), draw(conditions))
        for number in range(draw(st.integers(0, 6)))
    )


def unknown(reading: Reading, names: set[str]) -> Reading:
    """The same with these fields unknown."""
    return replace(reading, **dict.fromkeys(names & set(Reading.__struct_fields__)))
