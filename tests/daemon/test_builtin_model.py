"""The built-in model, through the installed daemon: an answer on first start, with nothing to download."""

import re

from serving import Daemon, text_of

QUESTION = [{"role": "user", "content": "What can you do?"}]

SKILLS = r"small talk|chat|Pilotlight|repeat|list|JSON|tool|remember|name"
"""What the model was trained for; a true answer names at least one."""


def test_it_says_what_it_can_do(shared: Daemon) -> None:
    """Streamed: a sentence in plain English that is true of it, ended by itself."""
    with shared.stream("pilot", messages=QUESTION) as stream:
        *rest, last = stream
    text = text_of(iter(rest)).strip()
    assert re.search(SKILLS, text), text
    assert re.fullmatch(r"[A-Z][\x20-\x7e\n]{10,}[.!?]", text), text
    assert rest[-1]["choices"][0]["finish_reason"] == "stop"
    assert last == {"done": True}


def test_it_answers_the_same_each_time(shared: Daemon) -> None:
    """It is greedy unless asked otherwise."""
    answers = {
        shared.post("pilot", messages=QUESTION).json()["choices"][0]["message"]["content"] for _ in "12"
    }
    assert len(answers) == 1


def test_it_remembers_a_name_from_an_earlier_turn(shared: Daemon) -> None:
    """And the second turn costs only its new tokens."""
    turns = [{"role": "user", "content": "My name is Anna."}]
    first = shared.post("pilot", messages=turns).json()["choices"][0]["message"]["content"]
    turns += [{"role": "assistant", "content": first}, {"role": "user", "content": "What is my name?"}]
    answer = shared.post("pilot", messages=turns).json()
    assert "Anna" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
