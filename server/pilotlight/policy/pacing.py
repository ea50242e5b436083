"""What the thermal controller does with background work now, and why, for people. Pure."""

from msgspec import Struct

from pilotlight.policy.thermal import Thermal
from pilotlight.power.reading import Reading


class Pacing(Struct, frozen=True):
    """Background work may run for the part `duty` of the time, because of `reason`.

    The rest is None where it is not known. `forecast`, `target` and `reserve` are headroom: what is expected
    in 30 s, where background work may take the machine to, and what is kept free of that for the next answer.
    """

    duty: float
    is_resting: bool
    reason: str
    rest_left_s: float | None = None
    """Seconds until it goes on if nothing changes."""
    forecast: float | None = None
    target: float | None = None
    reserve: float | None = None


def pacing(thermal: Thermal, reading: Reading, *, is_resting: bool, rest_left_s: float | None) -> Pacing:
    """As of this reading, which is the last one that the controller has heard."""
    duty = thermal.duty
    if reading.headroom is None:
        return Pacing(round(duty, 3), is_resting, _without_heat(duty, reading), _rounded(rest_left_s, 1))
    forecast = reading.headroom if reading.forecast is None else reading.forecast
    target = thermal.target
    return Pacing(
        duty=round(duty, 3),
        is_resting=is_resting,
        reason=_with_heat(duty, reading, forecast, target),
        rest_left_s=_rounded(rest_left_s, 1),
        forecast=_rounded(forecast, 3),
        target=_rounded(target, 3),
        reserve=_rounded(thermal.reserve, 3),
    )


def _with_heat(duty: float, reading: Reading, forecast: float, target: float) -> str:
    if duty <= 0:
        what = "the system throttles" if reading.is_throttled else "the system has throttled"
        return f"{what}: background work goes on once the forecast headroom is below {target:.2f}"
    where = "under" if forecast <= target else "above"
    seen = f"the forecast headroom, {forecast:.2f}, is {where} the {target:.2f} that leave room for an answer"
    return seen if duty >= 1 else f"{seen}: background work keeps it there"


def _without_heat(duty: float, reading: Reading) -> str:
    if reading.slowdown is None:
        return "nothing is known of heat"
    slower = f"no thermometer, and answers come {reading.slowdown:.0%} slower than when cold"
    return slower.replace("%", " %") + ("" if duty >= 1 else ": background work gives way until they do not")


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
