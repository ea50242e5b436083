"""GET /metrics: what is counted."""

import httpx
import pytest
from fake_service import FakeService, fail, say

from pilotlight.core import Accepted, Chunk, Cost, Finished, FinishReason, Size
from pilotlight.errors import WorkerFailed
from pilotlight.scheduler.answer import Item

BODY = {"model": "tiny", "prompt": "hi"}


async def scraped(client: httpx.AsyncClient) -> dict[str, float]:
    """Sample -> value."""
    lines = (await client.get("/metrics")).text.splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")
    }


async def test_tokens_are_counted(service: FakeService, client: httpx.AsyncClient) -> None:
    """By model and kind."""
    service.script = say("a", "b", cached=3)
    await client.post("/v1/completions", json=BODY | {"n": 2})
    samples = await scraped(client)
    tokens = {
        kind: samples[f'pilotlight_tokens_total{{kind="{kind}",model="tiny"}}']
        for kind in ("prompt", "cached", "completion")
    }
    assert tokens == {"prompt": 7, "cached": 3, "completion": 4}


@pytest.mark.parametrize(
    ("said", "cached"),
    [
        ([Chunk(0, "a", 1, cached_tokens=5), Chunk(0, "b", 1)], 5),
        ([Chunk(0, "a", 1, 5), Chunk(1, "b", 1, 6), Finished(1, FinishReason.STOP, 1, 6)], 5),
        ([Chunk(1, "b", 1, 6), Finished(1, FinishReason.STOP, 1, 6)], 0),
    ],
)
async def test_what_was_cached_is_counted_of_answers_that_do_not_end(
    service: FakeService, client: httpx.AsyncClient, said: list[Item], cached: int
) -> None:
    """By the first of them: those after it share the prompt that it computes."""
    service.script = fail(WorkerFailed("it died"), after=[Accepted(7), *said])
    await client.post("/v1/completions", json=BODY | {"n": 2})
    samples = await scraped(client)
    assert samples['pilotlight_tokens_total{kind="prompt",model="tiny"}'] == 7
    assert samples['pilotlight_tokens_total{kind="cached",model="tiny"}'] == cached


async def test_requests_are_counted_by_outcome(client: httpx.AsyncClient) -> None:
    """One each, whatever became of it."""
    await client.post("/v1/completions", json=BODY)
    await client.post("/v1/completions", json=BODY | {"model": "x"})
    await client.post("/v1/completions", json=BODY | {"n": 0})
    samples = await scraped(client)
    name = 'pilotlight_requests_total{endpoint="/v1/completions",model="%s",status="%s"}'
    assert (
        samples[name % ("tiny", 200)]
        == samples[name % ("unknown", 404)]
        == samples[name % ("unknown", 400)]
        == 1
    )


async def test_strangers_make_no_new_labels(client: httpx.AsyncClient) -> None:
    """Neither names of models nor paths, or a scanner would fill the memory."""
    for name in ("a", "b"):
        await client.get(f"/{name}")
        await client.get(f"/v1/models/{name}")
        await client.post("/v1/completions", json=BODY | {"model": name})
    labels = [name for name in await scraped(client) if name.startswith("pilotlight_requests_total")]
    assert len(labels) == 3


async def test_times_are_observed(client: httpx.AsyncClient) -> None:
    """The first token of each request."""
    await client.post("/v1/completions", json=BODY)
    samples = await scraped(client)
    assert samples['pilotlight_time_to_first_token_seconds_count{class="interactive",model="tiny"}'] == 1
    await client.post("/v1/completions", json=BODY | {"service_tier": "flex"})
    samples = await scraped(client)
    assert samples['pilotlight_inter_token_seconds_count{class="background",model="tiny"}'] == 0
    assert samples['pilotlight_time_to_first_token_seconds_count{class="background",model="tiny"}'] == 1


async def test_gauges_show_every_model(client: httpx.AsyncClient) -> None:
    """Also those that never ran."""
    samples = await scraped(client)
    assert samples['pilotlight_workers{state="stopped"}'] == 2
    assert samples['pilotlight_workers{state="ready"}'] == 0
    for gauge in ("resident_bytes", "worker_restarts_total", "paused_sequences", "paused_seconds_total"):
        assert samples[f'pilotlight_{gauge}{{model="org/large"}}'] == 0
    for gauge in ("queue_requests", "active_sequences"):
        assert samples[f'pilotlight_{gauge}{{class="batch",model="org/large"}}'] == 0
    assert any(name.startswith("pilotlight_build_info") for name in samples)


async def test_what_a_model_costs_is_shown(service: FakeService, client: httpx.AsyncClient) -> None:
    """As estimated, and as measured once it was."""
    name = 'pilotlight_cost_bytes{kind="%s",model="tiny"}'
    assert not any("cost_bytes" in sample for sample in await scraped(client))
    service.cost = Cost(Size(30, 4), Size(50, 6), Size(20, 1), is_measured=True)
    samples = await scraped(client)
    sizes = {kind: samples[name % kind] for kind in ("estimated", "measured", "at_most")}
    assert sizes == {"estimated": 21, "measured": 34, "at_most": 56}
    service.cost = Cost(Size(20, 1), Size(50, 6), Size(20, 1), is_measured=False)
    assert name % "measured" not in await scraped(client)
