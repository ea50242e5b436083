"""What answers say of the policy, in headers, bodies and streams."""

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import httpx
import pytest
from fake_service import MODELS, FakeService
from msgspec.structs import replace

from pilotlight.core import Capabilities, Model
from pilotlight.policy.settings import RuleSettings, rules_of
from pilotlight.power.reading import Reading, Supply, ThermalLevel
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.finder import Finder
from pilotlight.scheduler.gate import Policy

PATH = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "org/large", "messages": [{"role": "user", "content": "hi"}]}
STREAM = BODY | {"stream": True}

LOW = Reading(supply=Supply.BATTERY, percent=14.0)


async def test_an_answer_that_nothing_restricts_says_so(client: httpx.AsyncClient) -> None:
    """In headers that are always there; its body is as ever."""
    answer = await client.post(PATH, json=BODY)
    assert [answer.headers[f"x-policy-{name}"] for name in ("state", "action", "rule")] == ["none"] * 3
    assert "policy" not in answer.json()


async def test_the_small_model_answers_with_its_own_name(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """With its own sampling values, and at most as many tokens as the rule lets it."""
    service.readings.now = LOW
    answer = await client.post(PATH, json=BODY)
    assert answer.json()["model"] == "tiny"
    assert answer.headers["x-policy-state"] == "supply=battery;percent=14"
    assert answer.headers["x-policy-action"] == "model=tiny;reasoning=false;max_tokens=256;keep_alive=60"
    assert answer.headers["x-policy-rule"] == "on battery, half battery, low battery"
    assert "tiny answers instead of org/large" in answer.json()["policy"]["reason"]
    (request,) = service.requests
    assert (request.model, request.max_tokens) == ("tiny", 256)
    assert request.sampling.temperature == 0.25
    assert request.prompt.template_kwargs == {"enable_thinking": False}


async def test_the_small_model_answers_the_same_app(service: FakeService, client: httpx.AsyncClient) -> None:
    """What it takes is that app's."""
    service.readings.now = LOW
    await client.post(PATH, json=BODY, headers={"User-Agent": "Notes/1.0"})
    (request,) = service.requests
    assert (request.model, request.app) == ("tiny", "Notes")


class Stored(Finder):
    """A store that has the small model, which nobody looked into yet."""

    def complete(self, configured: tuple[Model, ...]) -> tuple[Model, ...]:
        return (*configured, MODELS[0])


@pytest.mark.parametrize("name", ["tiny", "org/tiny"])
async def test_a_small_model_that_only_a_store_has_answers(
    service: FakeService, client: httpx.AsyncClient, name: str
) -> None:
    """Under its own name, whichever of its names is configured."""
    service.readings.now = LOW
    service.catalog = Catalog([replace(MODELS[1], small=name)], Stored())
    answer = await client.post(PATH, json=BODY)
    assert (answer.status_code, answer.json()["model"]) == (200, "tiny")
    assert answer.headers["x-policy-action"].startswith("model=tiny;")


@pytest.mark.parametrize("unpulled", [(), ("far",)])
async def test_a_small_model_that_is_not_here_leaves_the_rest_of_the_rule(
    service: FakeService, client: httpx.AsyncClient, unpulled: tuple[str, ...]
) -> None:
    """The large one answers, with fewer tokens, whether it was never pulled or is gone."""
    service.readings.now = LOW
    service.catalog = Catalog([replace(MODELS[1], small="far")], unpulled=unpulled)
    answer = await client.post(PATH, json=BODY)
    assert (answer.status_code, answer.json()["model"]) == (200, "org/large")
    assert answer.headers["x-policy-action"] == "reasoning=false;max_tokens=256;keep_alive=60"


class Counted(Finder):
    """How often somebody looked into the stores."""

    num_looks = 0

    def complete(self, configured: tuple[Model, ...]) -> tuple[Model, ...]:
        self.num_looks += 1
        return configured


async def test_nobody_looks_for_a_small_model_that_was_never_pulled(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """At every request of the large one."""
    finder = Counted()
    service.catalog = Catalog([replace(MODELS[1], small="far")], finder, unpulled=["far"])
    assert (await client.post(PATH, json=BODY)).status_code == 200
    assert finder.num_looks == 0


async def test_threads_are_told_of_the_model_that_answers(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """Those of the small one cannot be changed."""
    large = replace(MODELS[1], capabilities=Capabilities(live_threads=True))
    service.catalog = Catalog([MODELS[0], large])
    for reading, threads in ((replace(LOW, percent=90.0), True), (LOW, False)):
        service.readings.now = replace(reading, at=anyio.current_time())
        service.gate.follow(Policy(rules_of("balanced", ())))
        answer = await client.post(PATH, json=BODY)
        assert ("threads=efficient" in answer.headers["x-policy-action"]) == threads


async def test_a_stream_says_it_at_its_end(service: FakeService, client: httpx.AsyncClient) -> None:
    """In the last chunk, and no event is anything but a chunk."""
    service.readings.now = LOW
    text = (await client.post(PATH, json=STREAM | {"stream_options": {"include_usage": True}})).text
    assert "event:" not in text
    last = text.split("\n\n")[-3]
    assert '"usage":{' in last and '"reason":"on battery at 14 %' in last


async def test_a_strict_client_is_refused(service: FakeService, client: httpx.AsyncClient) -> None:
    """With the reason, in OpenAI's shape, and without being asked to try again."""
    service.readings.now = LOW
    answer = await client.post(PATH, json=BODY, headers={"X-Policy": "strict"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (503, "policy", "battery_floor")
    assert error["message"].startswith("on battery at 14 %: ")
    assert answer.headers["x-should-retry"] == "false" and "retry-after" not in answer.headers
    assert answer.headers["x-policy-action"] == "admit=reject"


async def test_an_override_is_honoured_and_said(service: FakeService, client: httpx.AsyncClient) -> None:
    """Of one request by its header, of all by the admin's; heat that is critical is above both."""
    service.readings.now = LOW
    answer = await client.post(PATH, json=BODY, headers={"X-Policy-Override": "1"})
    assert (answer.json()["model"], answer.headers["x-policy-action"]) == ("org/large", "override=true")
    assert (await client.post("/admin/policy/override", json={"ttl": "1h"})).status_code == 200
    assert (await client.post(PATH, json=BODY)).json()["model"] == "org/large"
    service.readings.now = Reading(thermal=ThermalLevel.CRITICAL)
    hot = await client.post(PATH, json=BODY)
    assert (hot.status_code, hot.json()["error"]["code"]) == (503, "thermal_critical")


@pytest.mark.parametrize("headers", [{"X-Policy": "lax"}, {"X-Policy-Override": "yes"}])
async def test_headers_that_mean_nothing_are_refused(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """By name."""
    answer = await client.post(PATH, json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(headers)))


async def test_what_nobody_waits_for_overrides_nothing(client: httpx.AsyncClient) -> None:
    """Programs would always send it."""
    headers = {"X-Policy-Override": "1", "X-Request-Class": "background"}
    answer = await client.post(PATH, json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Policy-Override")


@pytest.mark.parametrize("ttl", [-1, 90000, pytest.param(10**310, id="10**310"), "soon"])
async def test_an_override_has_an_end(client: httpx.AsyncClient, ttl: Any) -> None:
    """A day at most."""
    assert (await client.post("/admin/policy/override", json={"ttl": ttl})).status_code == 400


@pytest.mark.parametrize("ttl", ["soon", True])
async def test_how_long_an_override_lasts_is_told_as_what_it_is(client: httpx.AsyncClient, ttl: Any) -> None:
    """It has nothing to do with models in memory, and never to last for good."""
    answer = await client.post("/admin/policy/override", json={"ttl": ttl})
    assert answer.json()["error"]["message"] == (
        'ttl must be seconds (3600), a duration ("1h", "90m"), or 0 (end the override)'
    )


async def while_held(
    service: FakeService,
    client: httpx.AsyncClient,
    body: dict[str, Any],
    models: Sequence[Model] = MODELS,
    free: Callable[[], None] | None = None,
) -> httpx.Response:
    """A background request that waits on battery until somebody overrides that, or as `free` ends it; these
    are the models then."""
    service.readings.now = Reading(supply=Supply.BATTERY, percent=80.0)
    answers: list[httpx.Response] = []

    async def ask() -> None:
        answers.append(await client.post(PATH, json=body, headers={"X-Request-Class": "background"}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: service.gate.held == 1)
        assert not service.requests
        await service.catalog.replace(models, Finder())
        if free is None:
            service.gate.override(60)
        else:
            free()
    return answers[0]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_a_stream_that_waits_says_why(service: FakeService, client: httpx.AsyncClient) -> None:
    """In a comment that no client parses; then it is answered."""
    answer = await while_held(service, client, STREAM)
    first, *rest = answer.text.split("\n\n")
    assert first.startswith(': policy {"state":{"supply":"battery"')
    assert "background requests wait" in first
    assert rest[-2] == "data: [DONE]"


async def test_a_whole_answer_waits_too(service: FakeService, client: httpx.AsyncClient) -> None:
    """Its headers say what it waited for."""
    answer = await while_held(service, client, BODY)
    assert answer.json()["model"] == "org/large"
    assert answer.headers["x-policy-action"] == "admit=defer;keep_alive=300;max_wait=28800"


async def test_a_stream_that_waits_in_vain_ends_with_an_error(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """The daemon is about to end."""
    service.readings.now = Reading(supply=Supply.BATTERY)
    service.gate.close()
    answer = await client.post(PATH, json=STREAM, headers={"X-Request-Class": "background"})
    assert '"code":"shutting_down"' in answer.text and "[DONE]" not in answer.text


async def test_a_stream_whose_model_goes_while_it_waits_ends_with_an_error(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """It has begun already, so that is an event; and it is counted as what it is."""
    answer = await while_held(service, client, STREAM, MODELS[:1])
    assert '"code":"model_not_found"' in answer.text and "[DONE]" not in answer.text
    assert f'endpoint="{PATH}",model="org/large",status="404"}} 1.0' in service.metrics.text().decode()


NEW = Model("new", MODELS[1].path, aliases=("org/large",), small="tiny", sampling={"temperature": 0.75})


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_a_model_that_is_renamed_meanwhile_answers_by_its_new_name(
    service: FakeService, client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """The old one is an alias by now; with the values that it has now, and counted so."""
    answer = await while_held(service, client, body, (MODELS[0], NEW))
    assert '"model":"new"' in answer.text and "org/large" not in answer.text
    (request,) = service.requests
    assert (request.model, request.sampling.temperature, request.request_class) == ("new", 0.75, "background")
    counted = service.metrics.text().decode()
    assert f'endpoint="{PATH}",model="new",status="200"}} 1.0' in counted
    assert 'pilotlight_tokens_total{kind="completion",model="new"} 2.0' in counted


async def test_an_alias_goes_to_whom_it_belongs_by_then(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """It is what the client asked for, whatever the model behind it was called."""
    service.catalog = Catalog([replace(MODELS[1], name="old", aliases=("org/large",))])
    answer = await while_held(service, client, BODY, [NEW])
    assert (answer.status_code, answer.json()["model"]) == (200, "new")


@pytest.mark.parametrize(
    ("models", "answers", "action"),
    [
        (MODELS[1:], "org/large", {}),
        ((replace(MODELS[0], name="mini", aliases=("tiny",)), MODELS[1]), "mini", {"model": "mini"}),
    ],
)
async def test_the_small_model_answers_if_it_is_still_there(
    service: FakeService,
    client: httpx.AsyncClient,
    models: Sequence[Model],
    answers: str,
    action: dict[str, str],
) -> None:
    """By its name of now; else the one that was asked, and nothing else is said."""
    rule = {"name": "spare", "when": {}, "background": {"model": "small", "max_tokens": 9}}
    spare = Policy(rules_of("always", (RuleSettings.model_validate(rule),)))
    answer = await while_held(service, client, BODY, models, lambda: service.gate.follow(spare))
    assert (answer.status_code, answer.json()["model"]) == (200, answers)
    policy = answer.json()["policy"]
    assert policy["action"] == action | {"max_tokens": "9"}
    assert ("mini answers instead of org/large" in policy["reason"]) == bool(action)
    (request,) = service.requests
    assert (request.model, request.max_tokens) == (answers, 9)


async def test_admin_policy_shows_rules_and_what_they_do(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    """By class; and the override that is left."""
    service.readings.now = LOW
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.power.run)
        policy = (await client.get("/admin/policy")).json()
        tasks.cancel_scope.cancel()
    assert [rule["name"] for rule in policy["rules"]] == ["on battery", "half battery", "low battery"]
    assert policy["classes"]["background"]["action"] == {"admit": "reject"}
    assert (policy["preset"], policy["held"], policy["override_left_s"]) == ("balanced", 0, 0.0)
