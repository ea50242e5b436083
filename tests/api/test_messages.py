"""Chat messages: what is accepted, and what a template gets to read."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from pilotlight.api import body, chat
from pilotlight.api.messages import Message
from pilotlight.errors import BadRequest, Unsupported

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def rendered(**fields: Any) -> dict[str, Any]:
    return Message.model_validate(fields).for_template()


def test_developer_is_system() -> None:
    """Templates know only the older name."""
    assert rendered(role="developer", content="x") == {"role": "system", "content": "x"}


def test_parts_are_joined_by_newlines() -> None:
    """Templates of text models expect a string; where a cache is to begin says nothing to them."""
    breakpoint = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    parts = [{"type": "text", "text": "a", **breakpoint}, {"type": "text", "text": "b"}]
    assert rendered(role="user", content=parts)["content"] == "a\nb"


def test_arguments_become_an_object() -> None:
    """Templates print them with `tojson`."""
    message = rendered(role="assistant", content=None, tool_calls=[CALL])
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert message["content"] == ""


@pytest.mark.parametrize("arguments", ["", "{", "[1]", '{"a": 1e400}', '{"a": ' + "9" * 30 + "}", "[" * 300])
def test_arguments_that_are_no_object_stay_text(arguments: str) -> None:
    """It is what the model wrote."""
    call = {"id": "c1", "function": {"name": "f", "arguments": arguments}}
    message = rendered(role="assistant", tool_calls=[call])
    assert message["tool_calls"][0]["function"]["arguments"] == arguments


def test_a_tool_result_is_passed_on() -> None:
    """With the call it answers."""
    message = rendered(role="tool", content="42", tool_call_id="c1", name="f")
    assert message == {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"}


def test_an_answer_of_ours_can_be_sent_back() -> None:
    """Clients append the whole message object they got, and what their helpers have added to it."""
    message = rendered(
        role="assistant",
        content='{"a": 1}',
        refusal=None,
        annotations=[],
        audio=None,
        tool_calls=None,
        parsed={"a": 1},
        provider_specific_fields={"refusal": None},
    )
    assert message == {"role": "assistant", "content": '{"a": 1}'}


def test_reasoning_is_passed_on() -> None:
    """Templates of reasoning models read it."""
    assert rendered(role="assistant", content="x", reasoning_content="y")["reasoning_content"] == "y"


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "assistant", "content": None},
        {"role": "assistant", "tool_calls": []},
        {"role": "user", "content": "x", "tool_calls": [CALL]},
        {"role": "tool", "content": "x"},
        {"role": "user", "content": "x", "tool_call_id": "c"},
        {"role": "user", "content": []},
        {"role": "user", "content": [1]},
        {"role": "user", "content": {}},
        {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": ""}},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    """Roles have the fields OpenAI gives them."""
    with pytest.raises(ValidationError):
        Message.model_validate(fields)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_parts_are_unsupported_by_name(kind: str) -> None:
    """An image silently dropped would be the worst answer."""
    message = {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": kind, kind: {}}]}
    raw = json.dumps({"model": "tiny", "messages": [message]}).encode()
    with pytest.raises(Unsupported) as caught:
        body.parse(raw, chat.DIALECT, "refuse")
    assert caught.value.param == "messages[0].content[1].type"


def test_a_part_of_no_kind_is_a_bad_request() -> None:
    """Not unsupported: it is nothing."""
    raw = b'{"model":"tiny","messages":[{"role":"user","content":[{"type":"x"}]}]}'
    with pytest.raises(BadRequest) as caught:
        body.parse(raw, chat.DIALECT, "refuse")
    assert not isinstance(caught.value, Unsupported)
