"""GET /admin/policy: what is known, where from, and what is not."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from fake_service import FakeService

from pilotlight.policy.thermal import MARGIN
from pilotlight.power.finding import FIELDS
from pilotlight.power.reading import Reading


@pytest.fixture
async def reading(
    service: FakeService, client: httpx.AsyncClient
) -> AsyncIterator[dict[str, dict[str, object]]]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.power.run)
        yield (await client.get("/admin/policy")).json()["reading"]
        tasks.cancel_scope.cancel()


async def test_each_value_comes_with_where_it_is_from(reading: dict[str, dict[str, object]]) -> None:
    """Unit, age, source and confidence."""
    assert reading["supply"] == {
        "value": "battery",
        "age_s": 0.0,
        "source": "power_supply BAT0",
        "confidence": "measured",
    }
    assert (reading["percent"]["value"], reading["percent"]["unit"]) == (41.5, "%")
    assert reading["percent"]["confidence"] == "derived"


async def test_what_is_not_known_comes_with_the_reason(reading: dict[str, dict[str, object]]) -> None:
    """No field is left out."""
    assert reading["celsius"] == {"value": None, "reason": "there is no thermometer"}
    assert list(reading) == list(FIELDS)
    assert all(value["value"] is not None or value["reason"] for value in reading.values())


async def test_the_thermal_controller_is_told(service: FakeService, client: httpx.AsyncClient) -> None:
    """How much of the time background work runs, where it is kept, and why."""
    for at in range(1, 90):
        service.pacer.on_reading(Reading(at=at, headroom=0.9, forecast=0.95), at)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.power.run)
        pacing = (await client.get("/admin/policy")).json()["pacing"]
        tasks.cancel_scope.cancel()
    assert pacing["duty"] < 1 and pacing["forecast"] == 0.95
    assert pacing["target"] == pytest.approx(1 - MARGIN - pacing["reserve"], abs=0.002)
    assert "0.95, is above the" in pacing["reason"]
