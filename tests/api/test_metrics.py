"""GET /metrics: what is counted."""

import httpx
from fake_service import FakeService, say

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
