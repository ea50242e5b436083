"""A batch's line goes the way of a request over HTTP, with nobody at a connection."""

import json
from typing import Any

import anyio
import pytest
from fake_service import MODELS, FakeService, fail, hold, say
from msgspec.structs import replace
from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.testing import capture_logs

from pilotlight.api.offline import Offline
from pilotlight.core import Accepted, RequestClass
from pilotlight.energy.accounts import Energy
from pilotlight.errors import BadRequest, Busy, Error, Internal, ModelNotFound, UnknownField, Unsupported
from pilotlight.policy.settings import RuleSettings, rules_of
from pilotlight.registry.catalog import Catalog
from pilotlight.scheduler.gate import Policy

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]} | fields).encode()


async def test_a_line_is_answered_as_a_request_is(service: FakeService) -> None:
    """In the last of the classes, and its answer says so."""
    answer = json.loads(await Offline(service).ask(CHAT, body(model="small"), "req_1"))
    assert (answer["id"], answer["object"], answer["model"]) == ("chatcmpl-1", "chat.completion", "tiny")
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert (answer["usage"]["total_tokens"], answer["service_tier"]) == (9, "flex")
    (request,) = service.requests
    assert request.request_class is RequestClass.BATCH


async def test_its_answer_says_what_it_took(service: FakeService) -> None:
    """In the output file, as over HTTP; the program that asked is the batch."""
    service.script = say("Hi", energy=Energy("rapl", "package", 1.0, 2.0, share=1.0))
    answer = json.loads(await Offline(service).ask(CHAT, body(), "req_1"))
    assert (answer["usage"]["energy"]["joules"], service.requests[0].app) == (3, "batch")


async def test_its_tokens_are_counted(service: FakeService) -> None:
    """With those of everybody else."""
    await Offline(service).ask(CHAT, body(), "req_1")
    assert b'pilotlight_tokens_total{kind="completion",model="tiny"} 2.0' in service.metrics.text()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"temperature": 99}, BadRequest),
        ({"temprature": 1}, UnknownField),
        ({"stream": True}, Unsupported),
        ({"model": "tony"}, ModelNotFound),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, BadRequest),
    ],
)
async def test_what_is_wrong_with_it_is_raised(
    service: FakeService, fields: dict[str, Any], kind: type[Error]
) -> None:
    """The same errors; nothing was asked of the model."""
    with pytest.raises(kind):
        await Offline(service).ask(CHAT, body(**fields), "req_1")
    assert service.requests == []


@pytest.mark.parametrize(("small", "answers"), [("org/tiny", "tiny"), ("far", "org/large")])
async def test_the_small_model_answers_if_it_is_here(service: FakeService, small: str, answers: str) -> None:
    """By whichever name; else the one that was asked."""
    service.catalog = Catalog([MODELS[0], replace(MODELS[1], small=small)])
    rule = RuleSettings.model_validate({"name": "spare", "when": {}, "batch": {"model": "small"}})
    service.gate.follow(Policy(rules_of("always", (rule,))))
    answer = json.loads(await Offline(service).ask(CHAT, body(model="org/large"), "req_1"))
    assert answer["model"] == answers


async def test_a_refusal_is_raised(service: FakeService) -> None:
    """Also in the middle of an answer."""
    for after in ((), (Accepted(3),)):
        service.script = fail(Busy("full"), after=after)
        with pytest.raises(Busy):
            await Offline(service).ask(CHAT, body(), "req_1")


async def test_a_cancelled_line_frees_its_request(service: FakeService) -> None:
    """At once."""
    service.script = hold(Accepted(3))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Offline(service).ask, CHAT, body(), "req_1")
        await anyio.wait_all_tasks_blocked()
        assert len(service.requests) == 1
        tasks.cancel_scope.cancel()
    assert service.releases == ["req_1"]


async def test_a_bug_of_ours_is_the_lines_answer(service: FakeService) -> None:
    """It must not end the daemon, which would meet the same line after every start."""
    with pytest.raises(Internal, match="req_1"):
        await Offline(service).ask("/v1/nope", body(), "req_1")
    assert service.requests == []


def test_who_knows_no_model_runs_one_line(service: FakeService) -> None:
    """Until it is loaded nobody knows how many run side by side."""
    assert Offline(service).parallel("tiny") == Offline(service).parallel("nope") == 1


async def test_what_is_logged_of_a_line_has_its_id(service: FakeService) -> None:
    """Its answer names that, and says that the log has the details; what comes after it has none."""
    with capture_logs(processors=[merge_contextvars]) as logs, pytest.raises(Internal):
        await Offline(service).ask("/v1/nope", body(), "req_1")
    (bug,) = logs
    assert (bug["log_level"], bug["request_id"]) == ("error", "req_1")
    assert "request_id" not in get_contextvars()
