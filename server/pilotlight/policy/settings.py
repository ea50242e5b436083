"""[policy] and [[rule]]: what models.toml may say of the policy, and the rules that it comes to.

A wrong word is an error of the whole file, see `sources`. Decides nothing.
"""

import re
import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

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
from pilotlight.policy.hysteresis import Hysteresis
from pilotlight.policy.limits import ALL_THREADS, EFFICIENT, Threads
from pilotlight.policy.rules import Rule
from pilotlight.power.reading import Supply, ThermalLevel
from pilotlight.registry import keep_alive
from pilotlight.registry.pressure import Level as MemoryLevel

Preset = Literal["always", "balanced", "quiet", "battery", "server", "off"]

MAX_WAIT = "8h"
"""Of deferred requests whose rule does not say how long."""

MOST_THREADS = 1024

_NO_DURATION = 'must be seconds (30) or a duration ("30s", "1h30m")'


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(_NO_DURATION)
    seconds = keep_alive.seconds(value, _NO_DURATION)
    if seconds == keep_alive.FOREVER:
        raise ValueError('must have an end: seconds (30) or a duration ("30s", "1h30m")')
    return seconds


def _between(value: Any) -> Between:
    match = re.fullmatch(r"(\d\d?):(\d\d) ?- ?(\d\d?):(\d\d)", value) if isinstance(value, str) else None
    if match is not None:
        hours, minutes = (
            [int(hour) for hour in match.groups()[::2]],
            [int(one) for one in match.groups()[1::2]],
        )
        start, end = (60 * hour + minute for hour, minute in zip(hours, minutes, strict=True))
        if max(hours) < 24 and max(minutes) < 60 and start != end:
            return Between(start, end)
    raise ValueError("must be two different times of the day, as in '22:00-07:00'")


def _threads(value: Any) -> Threads:
    if value == "efficient":
        return EFFICIENT
    match = re.fullmatch(r"(\d\d?) ?%", value) if isinstance(value, str) else None
    if match is not None and int(match[1]):
        return Threads(part=int(match[1]) / 100)
    if isinstance(value, float) and 0 < value < 1:
        return Threads(part=value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_THREADS:
        return Threads(value)
    raise ValueError(
        'must be a number of threads (4), a part of those there are (0.5 or "50%"), or "efficient"'
    )


Seconds = Annotated[float, BeforeValidator(_seconds)]
Window = Annotated[Between, PlainValidator(_between)]
ThreadLimit = Annotated[Threads, PlainValidator(_threads)]
Percent = Annotated[float, Field(gt=0, le=100)]
Headroom = Annotated[float, Field(gt=0, le=2)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class WhenSettings(_Table):
    """When a rule begins: all that is given has to be so, or worse."""

    supply: Literal["ac-weak", "battery"] | None = None
    battery_below: Percent | None = None
    saver: Literal[True] | None = None
    thermal: Literal["fair", "serious", "critical"] | None = None
    headroom_above: Headroom | None = None
    forecast_above: Headroom | None = None
    memory: Literal["warn", "critical"] | None = None
    load_above: float | None = Field(None, ge=0, lt=1)
    active_within: Seconds | None = None
    between: Window | None = None

    def conditions(self) -> tuple[Condition, ...]:
        return tuple(_BAD[name](value) for name, value in self if value is not None)


class UntilSettings(_Table):
    """When a rule that has begun may end: all that is given has to be so, or better."""

    supply: Literal["ac", "ac-weak"] | None = None
    battery_above: Percent | None = None
    saver: Literal[False] | None = None
    thermal: Literal["nominal", "fair", "serious"] | None = None
    thermal_below: Headroom | None = None
    memory: Literal["normal", "warn"] | None = None
    idle_for: Seconds | None = None
    between: Window | None = None

    def conditions(self) -> tuple[Condition, ...]:
        """What has to be over."""
        return tuple(_GOOD[name](value) for name, value in self if value is not None)


class ActionSettings(_Table):
    """What a rule restricts for a class of requests."""

    admit: Literal["defer", "reject"] | None = None
    max_wait: Seconds | None = None
    model: Literal["small"] | None = None
    reasoning: Literal[False] | None = None
    max_tokens: int | None = Field(None, ge=1)
    context: int | None = Field(None, ge=64)
    clock: Literal["eco"] | None = None
    concurrency: int | None = Field(None, ge=1)
    keep_alive: Seconds | None = None
    threads: ThreadLimit = ALL_THREADS

    @model_validator(mode="after")
    def _waits_for_something(self) -> Self:
        if self.max_wait is not None and self.admit != "defer":
            raise ValueError("max_wait is for admit = 'defer'")
        return self

    def actions(self) -> Actions:
        wait = keep_alive.seconds(MAX_WAIT) if self.max_wait is None else self.max_wait
        return Actions(
            admit=Admit[(self.admit or "now").upper()],
            max_wait_s=wait if self.admit == "defer" else None,
            is_small=self.model == "small",
            is_reasoning_off=self.reasoning is False,
            max_tokens=self.max_tokens,
            context=self.context,
            is_eco=self.clock == "eco",
            concurrency=self.concurrency,
            keep_alive_s=self.keep_alive,
            threads=self.threads,
        )


class RuleSettings(_Table):
    """[[rule]]: when it begins, until when it holds, and what it restricts."""

    name: str = Field(min_length=1, max_length=80)
    when: WhenSettings
    until: UntilSettings = UntilSettings()
    any: ActionSettings = ActionSettings()
    interactive: ActionSettings = ActionSettings()
    background: ActionSettings = ActionSettings()
    batch: ActionSettings = ActionSettings()

    @model_validator(mode="after")
    def _restricts_something(self) -> Self:
        if "defer" in (self.any.admit, self.interactive.admit):
            raise ValueError(
                "admit = 'defer' is for background and batch: somebody waits for an interactive answer"
            )
        if "eco" in (self.any.clock, self.interactive.clock):
            raise ValueError(
                "clock = 'eco' is for background and batch: a person's answer is not slowed down"
            )
        if not any(actions != Actions() for actions in self.rule().actions.values()):
            raise ValueError("restricts nothing: give interactive, background, batch or any an action")
        return self

    def rule(self) -> Rule:
        return Rule(
            name=self.name,
            when=self.when.conditions(),
            unless=self.until.conditions(),
            actions={one: self.any.actions() | getattr(self, one).actions() for one in RequestClass},
        )


class HysteresisSettings(_Table):
    """[policy.hysteresis]: rules begin fast and end slowly; see `hysteresis`."""

    battery: float = Field(5.0, ge=0, le=50)
    thermal: float = Field(0.10, ge=0, le=1)
    enter_after: Seconds = 2.0
    leave_after: Seconds = 30.0


class PolicySettings(_Table):
    """[policy]: which rules there are besides one's own."""

    prefix: ClassVar[str] = "policy_"

    preset: Preset = "balanced"
    background_priority: Literal["low", "normal"] = "low"
    hysteresis: HysteresisSettings = HysteresisSettings()


def rules_of(preset: Preset, own: tuple[RuleSettings, ...]) -> tuple[Rule, ...]:
    """The preset's rules and one's own, which take the place of the preset's by name. None if it is off."""
    if preset == "off":
        return ()
    by_name = {rule.name: rule for rule in (*_preset_rules(preset), *own)}
    return tuple(rule.rule() for rule in by_name.values())


def hysteresis_of(settings: HysteresisSettings) -> Hysteresis:
    return Hysteresis(**dict(settings))


@cache
def _preset_rules(preset: str) -> tuple[RuleSettings, ...]:
    document = tomllib.loads(resources.files("pilotlight.policy").joinpath("presets.toml").read_text("utf-8"))
    by_name = {table["name"]: RuleSettings.model_validate(table) for table in document["rule"]}
    return tuple(by_name[name] for name in document["presets"][preset])


_MEMORY = {"normal": MemoryLevel.NONE, "warn": MemoryLevel.WARN, "critical": MemoryLevel.CRITICAL}

_BAD: dict[str, Any] = {
    "supply": lambda word: SupplyIs(Supply(word)),
    "battery_below": BatteryBelow,
    "saver": lambda _: IsSaving(),
    "thermal": lambda word: ThermalIs(ThermalLevel[word.upper()]),
    "headroom_above": HeadroomAbove,
    "forecast_above": lambda headroom: HeadroomAbove(headroom, "forecast"),
    "memory": lambda word: MemoryIs(_MEMORY[word]),
    "load_above": LoadAbove,
    "active_within": ActiveWithin,
    "between": lambda window: window,
}
"""What has to be so for a rule to begin."""

_GOOD: dict[str, Any] = {
    "supply": lambda word: SupplyIs(Supply.WEAK if word == "ac" else Supply.BATTERY),
    "battery_above": BatteryBelow,
    "saver": lambda _: IsSaving(),
    "thermal": lambda word: ThermalIs(ThermalLevel(ThermalLevel[word.upper()] + 1)),
    "thermal_below": HeadroomAbove,
    "memory": lambda word: MemoryIs(MemoryLevel(_MEMORY[word] + 1)),
    "idle_for": ActiveWithin,
    "between": lambda window: Between(window.end, window.start),
}
"""What has to be over for a rule to end: the opposite of what it is until."""
