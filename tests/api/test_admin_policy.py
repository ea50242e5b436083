"""GET /admin/policy: what is known, where from, and what is not."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from fake_service import FakeService

from pilotlight.power.finding import FIELDS


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
