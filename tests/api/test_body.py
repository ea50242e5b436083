"""Bodies that mean nothing are a 4xx that says why; no body is a 5xx."""

import json
import re
from typing import Any, Literal

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotlight.api import body, chat, completions, fields
from pilotlight.errors import BadRequest, Error, UnknownField, Unsupported

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def refused(changes: dict[str, Any], base: dict[str, Any] = CHAT) -> BadRequest:
    return refused_raw(json.dumps({**base, **changes}).encode())


def refused_raw(raw: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        body.parse(raw, chat.DIALECT, "refuse")
    return caught.value


def parsed(changes: dict[str, Any]) -> chat.ChatBody:
    return body.parse(json.dumps({**CHAT, **changes}).encode(), chat.DIALECT, "refuse")[0]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"[" * 100_000,
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"a":1}{}',
        b'{"a":"\x00"}',
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    """Empty, cut off, not UTF-8, half a surrogate pair, too deep, not finite, too long."""
    assert refused_raw(raw).param is None


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "at most 2, not 3"),
        ({"temperature": "0.5"}, "temperature", "a number, not a string"),
        ({"temperature": True}, "temperature", "a number, not true"),
        ({"temperature": 10**400}, "temperature", "a number, not an integer"),
        ({"top_p": 0}, "top_p", "more than 0, not 0"),
        ({"n": 5.0}, "n", "an integer, not 5.0"),
        ({"n": 17}, "n", "at most 16, not 17"),
        ({"max_tokens": 0}, "max_tokens", "at least 1, not 0"),
        ({"max_tokens": -1}, "max_tokens", "at least 1, not -1"),
        ({"max_tokens": 10**30}, "max_tokens", "at most"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "differ"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stream": 1}, "stream", "true or false, not 1"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "not a known field"),
        ({"stop": ["a", ""]}, "stop[1]", "must not be empty"),
        ({"stop": ["a"] * 17}, "stop", "at most 16 items, not 17"),
        ({"stop": 5}, "stop", "a string or an array of strings"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"05": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"0" * 5000: 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"2147483648": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "from -100 to 100"),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repetition_penalty", "differ"),
        ({"chat_template_kwargs": {"a": 10**30}}, "chat_template_kwargs", "64 bits"),
        ({"chat_template_kwargs": {"a": json.loads("[" * 40 + "]" * 40)}}, "chat_template_kwargs", "nested"),
        ({"messages": []}, "messages", "must not be empty"),
        ({"messages": [{"role": "bob", "content": ""}]}, "messages[0].role", "'tool', not 'bob'"),
        ({"messages": "hi"}, "messages", "an array, not a string"),
        ({"model": ""}, "model", "must not be empty"),
        ({"model": "a\0b"}, "model", "U+0000"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content", "U+0000"),
        ({"metadata": {"a\0": 1}}, "metadata", "U+0000"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], param: str, words: str) -> None:
    """With its path, what is allowed and, if short, what was there."""
    error = refused(changes)
    assert error.param == param
    assert words in error.message


def test_a_missing_field_is_named() -> None:
    """There is no default model."""
    assert refused_raw(b'{"messages":[{"role":"user","content":""}]}').message == "model is required"


def test_an_unknown_field_names_the_nearest() -> None:
    """A typo would otherwise change nothing, silently."""
    error = refused({"temprature": 1})
    assert isinstance(error, UnknownField)
    assert error.param == "temprature"
    assert "did you mean 'temperature'?" in error.message


def test_a_field_that_is_refused_may_be_the_nearest() -> None:
    """Why it is refused is said where it is spelled right."""
    assert "did you mean 'top_logprobs'?" in refused({"top_logprob": 5}).message


def test_a_nested_unknown_field_names_the_nearest() -> None:
    """Also inside a message."""
    error = refused({"messages": [{"role": "user", "content": "x", "nane": "y"}]})
    assert error.param == "messages[0].nane"
    assert "did you mean 'name'?" in error.message


def test_unknown_fields_may_be_warned_about_instead() -> None:
    """They are left out and listed, wherever they stand."""
    raw = json.dumps({**CHAT, "x": 1, "messages": [{"role": "user", "content": "hi", "y": None}]}).encode()
    asked, warnings = body.parse(raw, chat.DIALECT, "warn")
    assert sorted(warnings) == ["messages[0].y", "x"]
    assert asked.messages[0].content == "hi"


@pytest.mark.parametrize("name", ["<", "<array>", "array"])
def test_an_unknown_field_may_have_any_name(name: str) -> None:
    """Also one that looks like what is left out of places."""
    part = {"type": "text", "text": "Hi", name: 1}
    raw = json.dumps(CHAT | {"messages": [{"role": "user", "content": [part]}]}).encode()
    _, warnings = body.parse(raw, chat.DIALECT, "warn")
    assert warnings == (f"messages[0].content[0].{name}",)
    with pytest.raises(UnknownField, match=re.escape(warnings[0])):
        body.parse(raw, chat.DIALECT, "refuse")


def test_a_warned_body_is_still_checked() -> None:
    """Warning is about unknown fields only."""
    raw = json.dumps({**CHAT, "x": 1, "temperature": 3}).encode()
    with pytest.raises(BadRequest, match="temperature"):
        body.parse(raw, chat.DIALECT, "warn")


MANY = body.MAX_VALUES + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": [1] * MANY},
        {"messages": [{"role": "user", "content": [1] * MANY}]},
        {"messages": [{"role": "user", "content": "hi", **dict.fromkeys(map(str, range(MANY)))}]},
        dict.fromkeys(map(str, range(MANY))),
        {"logit_bias": dict.fromkeys(map(str, range(MANY)), 1)},
        {"metadata": {str(number): [0] * (MANY // 8) for number in range(8)}},
        {"prompt": [1] * MANY},
    ],
)
def test_a_body_of_too_many_values_is_refused(changes: dict[str, Any]) -> None:
    """Wherever they are: a few megabytes could keep everybody waiting for a minute."""
    assert refused(changes).message.startswith("the body has more than 65536 values")


@pytest.mark.parametrize("unknown", ["refuse", "warn"])
def test_too_many_mistakes_are_only_counted(unknown: Literal["refuse", "warn"]) -> None:
    """Each would be told, though the first one is enough."""
    raw = json.dumps({**CHAT, "messages": [1] * 5000}).encode()
    with pytest.raises(BadRequest, match="5000 mistakes"):
        body.parse(raw, chat.DIALECT, unknown)


def test_a_long_conversation_may_have_unknown_fields() -> None:
    """Programs keep things of their own in messages."""
    messages = [{"role": "user", "content": "hi", "id": 1, "at": 2}] * 2000
    _, warnings = body.parse(json.dumps({**CHAT, "messages": messages}).encode(), chat.DIALECT, "warn")
    assert len(warnings) == 4000


def test_text_of_the_body_is_never_repeated() -> None:
    """An error may be logged or shown; a prompt must not be in it."""
    secret = "the prompt of somebody"
    assert secret not in refused({"messages": [{"role": secret, "content": secret}]}).message
    assert secret not in refused({"messages": secret}).message
    assert secret not in refused({"temperature": secret}).message


def test_null_is_absent() -> None:
    """Clients send their whole settings object."""
    names = [name for name in chat.ChatBody.model_fields if name not in ("model", "messages")]
    assert parsed(dict.fromkeys([*names, *fields.CHAT])) == parsed({})


def test_integers_are_numbers() -> None:
    """JSON has one number type."""
    assert parsed({"temperature": 1}).temperature == 1.0


def test_the_last_of_two_equal_keys_wins() -> None:
    """As in every JSON parser clients use."""
    raw = b'{"model":"a","model":"b","messages":[{"role":"user","content":""}]}'
    assert body.parse(raw, chat.DIALECT, "refuse")[0].model == "b"


@pytest.mark.parametrize("name", fields.CHAT)
def test_a_refused_field_is_refused_by_name(name: str) -> None:
    """With a value that asks for something."""
    if any(safe is fields.ANYTHING for safe in fields.CHAT[name].harmless) or name == "parallel_tool_calls":
        assert parsed({name: True})
        return
    error = refused({name: "something"})
    assert isinstance(error, Unsupported)
    assert error.param == name


@pytest.mark.parametrize("name", ["num_ctx", "chat_template", "lora"])
def test_what_a_model_is_loaded_with_is_not_for_a_request(name: str) -> None:
    """It says where that is set."""
    assert "set per model in models.toml" in refused({name: "something"}).message


@pytest.mark.parametrize("name", ["think", "enable_thinking"])
def test_plain_text_is_not_sent_to_a_field_that_it_does_not_have(name: str) -> None:
    """No template is there to be told; in a chat one is."""
    assert "send chat_template_kwargs" in refused({name: True}).message
    raw = json.dumps({"model": "tiny", "prompt": "x", name: True}).encode()
    with pytest.raises(Unsupported, match="use /v1/chat/completions"):
        body.parse(raw, completions.DIALECT, "refuse")


def test_a_refusal_is_true() -> None:
    """Conversations may be kept on disk, and marks of reasoning are special tokens of some models."""
    assert refused({"store": True}).message.endswith("no answer can be fetched again later")
    assert "only marks of reasoning" in refused({"skip_special_tokens": False}).message


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}},
        {"logprobs": False, "top_logprobs": 0},
        {"store": False, "priority": 0},
        {"modalities": ["text"]},
        {"mirostat": 0, "mirostat_tau": 5.0},
        {"user": "u", "metadata": {"a": "b"}, "prompt_cache_key": "k", "prompt_cache_options": {"ttl": "1h"}},
    ],
)
def test_values_that_ask_for_nothing_are_fine(changes: dict[str, Any]) -> None:
    """Many clients send their defaults."""
    assert parsed(changes)


def test_false_is_not_zero() -> None:
    """Equal in Python, different in JSON."""
    assert isinstance(refused({"top_logprobs": False}), Unsupported)
    assert isinstance(refused({"logprobs": 0}), Unsupported)


async def test_warnings_are_in_the_answer(service: Any, client: httpx.AsyncClient) -> None:
    """In the body and in a header, which stays one line whatever the field is called."""
    service.settings(unknown_fields="warn")
    response = await client.post("/v1/chat/completions", json={**CHAT, "x\r\ny: é": 1})
    assert response.json()["warnings"] == ["x\r\ny: é"]
    assert response.headers["x-pilotlight-warnings"] == "unknown field x??y: ?"


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, 0])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MESSAGE_FIELDS = st.sampled_from(["role", "content", "tool_calls", "tool_call_id", "name", "type", "text"])
MESSAGES = st.lists(
    st.dictionaries(MESSAGE_FIELDS, JSON | st.sampled_from(["user", "tool", "assistant"])), max_size=3
)
UNKNOWN_FIELDS: tuple[Literal["refuse", "warn"], ...] = ("refuse", "warn")
VALID: dict[str, Any] = {"model": "tiny", "messages": CHAT["messages"], "prompt": "x"}
FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def attempt(raw: bytes) -> None:
    """Parsing ends in a body or in a 4xx whose text can be sent."""
    for dialect in (chat.DIALECT, completions.DIALECT):
        for unknown in UNKNOWN_FIELDS:
            try:
                body.parse(raw, dialect, unknown)  # type: ignore[misc]  # a loop over two dialects
            except Error as error:
                assert 400 <= error.status < 500
                assert len(error.message.encode()) < 1000


@FUZZ
@given(st.binary(max_size=60))
def test_no_bytes_break_the_parser(raw: bytes) -> None:
    """Noise."""
    attempt(raw)


@FUZZ
@given(st.sampled_from([*chat.ChatBody.model_fields, *fields.CHAT, "prompt"]), JSON)
def test_no_value_breaks_the_parser(name: str, value: Any) -> None:
    """Any JSON in any field."""
    base = {key: VALID[key] for key in ("model", "messages")}
    attempt(json.dumps({**base, name: value}).encode())
    attempt(
        json.dumps({"model": "tiny", "prompt": "x", name: value}, ensure_ascii=False).encode(
            "utf-8", "replace"
        )
    )


@FUZZ
@given(MESSAGES)
def test_no_message_breaks_the_parser(messages: Any) -> None:
    """Messages that are nearly right."""
    attempt(json.dumps({"model": "tiny", "messages": messages}).encode())
