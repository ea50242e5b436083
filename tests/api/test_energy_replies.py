"""What answers say they took, and GET /admin/energy."""

import json
from typing import Any

import httpx
import pytest
from fake_service import FakeService, say

from pilotlight.core import Prompt, Request, RequestClass, Sampling
from pilotlight.energy.accounts import Energy
from pilotlight.energy.ledger import Ledger
from pilotlight.energy.meters import Method
from pilotlight.worker.protocol import Computed

pytestmark = pytest.mark.anyio

MEASURED = Energy("rapl", "package", 1.23456, 2.0, share=0.5, battery_percent=0.01)
SAID = {
    "joules": 3.235,
    "prefill_joules": 1.235,
    "decode_joules": 2.0,
    "method": "rapl",
    "scope": "package",
    "share": 0.5,
    "battery_percent": 0.01,
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"model": "tiny", "prompt": "Hi"},
}


@pytest.mark.parametrize("path", BODIES)
async def test_an_answer_says_what_it_took(
    client: httpx.AsyncClient, service: FakeService, path: str
) -> None:
    """Beside the tokens; with how that is known and whose energy it is."""
    service.script = say("Hi", energy=MEASURED)
    usage = (await client.post(path, json=BODIES[path])).json()["usage"]
    assert (usage["total_tokens"], usage["energy"]) == (8, SAID)


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_says_it_with_its_usage(
    client: httpx.AsyncClient, service: FakeService, path: str
) -> None:
    """If that was asked for."""
    service.script = say("Hi", energy=MEASURED)
    streamed = BODIES[path] | {"stream": True}
    asked = await client.post(path, json=streamed | {"stream_options": {"include_usage": True}})
    unasked = await client.post(path, json=streamed)
    events = [line.removeprefix("data: ") for line in asked.text.splitlines() if line.startswith("data: {")]
    assert json.loads(events[-1])["usage"]["energy"] == SAID
    assert "joules" not in unasked.text


async def test_what_no_meter_counted_is_no_number(client: httpx.AsyncClient, service: FakeService) -> None:
    """And the answer says why."""
    service.script = say("Hi", energy=Energy("none", reason="there is no meter"))
    energy = (await client.post("/v1/completions", json=BODIES["/v1/completions"])).json()["usage"]["energy"]
    assert (energy.pop("method"), energy.pop("reason")) == ("none", "there is no meter")
    assert set(energy.values()) == {None}


async def test_totals_are_told_by_model_and_by_app(client: httpx.AsyncClient, service: FakeService) -> None:
    """With each meter, or why it counts nothing."""
    ledger = service.energy = Ledger(watts_per_core=5)
    request = Request("r", "tiny", Prompt(), Sampling(), request_class=RequestClass.BATCH, app="curl")
    ledger.totals.add(request, Method.MODEL, Computed(1, 1.0, 30, 3.0, 6), 8.0)
    ledger.metered[Method.MODEL] = 9.0
    ledger.unattributed[Method.MODEL] = 1.0
    said = (await client.get("/admin/energy")).json()
    assert said["meters"] == [
        {"method": "model", "scope": "process", "joules": 9.0, "unattributed_joules": 1.0}
    ]
    counted = {
        "method": "model",
        "scope": "process",
        "joules": 8.0,
        "prefill_joules": 2.0,
        "decode_joules": 6.0,
        "prefill_tokens": 30,
        "decode_tokens": 6,
    }
    assert said["models"] == [{"model": "tiny", **counted}]
    assert said["apps"] == [{"app": "curl", "class": "batch", **counted}]


async def test_who_asks_is_known_by_the_name_of_the_program(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    """For the totals."""
    await client.post("/v1/completions", json=BODIES["/v1/completions"], headers={"user-agent": "notes/2.1"})
    assert service.requests[0].app == "notes"
