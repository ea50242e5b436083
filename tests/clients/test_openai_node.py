"""The stock openai-node client against a real daemon; node/client.mjs holds its half of each test."""

from typing import Any

import pytest

Seen = dict[str, Any]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_models_are_listed_and_retrieved(seen: Seen) -> None:
    """In the order of the configuration, after the built-in one."""
    builtin, ours = ["pilot", "pilot-onnx", "pilot-mlx"], ["echo", "slow", "tiny", "broken", "dying"]
    assert [model["id"] for model in seen["models"]] == builtin + ours
    assert seen["model"]["id"] == "tiny"


def test_a_chat_is_answered(seen: Seen) -> None:
    """In one piece."""
    (choice,) = seen["chat"]["choices"]
    assert choice["message"] == {"role": "assistant", "content": "one two three ", "refusal": None}
    assert (choice["finish_reason"], seen["chat"]["usage"]["total_tokens"]) == ("stop", 6)


def test_a_chat_is_streamed(seen: Seen) -> None:
    """Pieces that add up, and the usage at the end."""
    *chunks, last = seen["streamed"]
    assert text_of(chunks) == "one two three "
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)


def test_the_stream_helper_puts_it_together(seen: Seen) -> None:
    """And checks the chunks on the way."""
    assert seen["helper"]["choices"][0]["message"]["content"] == "one two three "


def test_what_the_stream_helper_gives_can_be_sent_back(seen: Seen) -> None:
    """With the fields of its own."""
    assert seen["continued"]["choices"][0]["message"]["content"].endswith("one two three ")


def test_two_answers_to_one_prompt(seen: Seen) -> None:
    """n = 2."""
    assert [choice["index"] for choice in seen["choices"]["choices"]] == [0, 1]


def test_the_same_seed_gives_the_same_text(seen: Seen) -> None:
    """Though both run at the same time."""
    first, second = (answer["choices"][0]["message"]["content"] for answer in seen["seeded"])
    assert first == second != ""


def test_a_stop_string_ends_the_answer(seen: Seen) -> None:
    """And is not part of it."""
    (choice,) = seen["stopped"]["choices"]
    assert choice["finish_reason"] == "stop"
    assert not set(choice["text"]) & set("aes")


def test_plain_completions(seen: Seen) -> None:
    """Whole and streamed."""
    assert seen["completion"]["choices"][0]["text"] == "four five "
    assert "".join(chunk["choices"][0]["text"] for chunk in seen["streamedCompletion"]) == "four five "


def test_a_stream_can_be_left(seen: Seen) -> None:
    """The client closes its connection."""
    assert seen["aborted"] is True


@pytest.mark.parametrize(
    ("scenario", "kind", "status", "code", "param"),
    [
        ("notFound", "NotFoundError", 404, "model_not_found", "model"),
        ("badRequest", "BadRequestError", 400, "invalid_value", "temperature"),
        ("unknownField", "BadRequestError", 400, "unknown_parameter", "temprature"),
        ("forbidden", "PermissionDeniedError", 403, "origin_not_allowed", None),
        ("rateLimit", "RateLimitError", 429, "queue_full", None),
        ("workerFailed", "InternalServerError", 500, "worker_failed", None),
    ],
)
def test_errors_are_the_classes_that_programs_catch(
    seen: Seen, scenario: str, kind: str, status: int, code: str, param: str | None
) -> None:
    """With status, code and parameter."""
    error = seen[scenario]
    assert (error["kind"], error["status"], error["code"], error["param"]) == (kind, status, code, param)


def test_an_error_in_mid_stream_is_thrown(seen: Seen) -> None:
    """Instead of an answer that just ends."""
    assert seen["brokenStream"]["isApiError"]
    assert "worker died" in seen["brokenStream"]["message"]
