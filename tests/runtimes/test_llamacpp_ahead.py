"""While nobody asks, the beginning of a chat's next turn is computed."""

import random
from pathlib import Path
from typing import Any

import pytest
from speaking import Bench, Speech, generate, llamacpp

from gguf_factory import write_tiny_gguf
from pilotlight.core import Prompt, RequestClass
from pilotlight.runtimes import ahead
from pilotlight.worker.protocol import Generate

QUESTION = "Tell me of the system and the model."
OPENING = "<|im_end|>\n<|im_start|>user\n"
"""What the template puts between an answer and the user's next words."""


@pytest.fixture(scope="session")
def loaded_ahead(tiny_gguf: Path) -> Bench:
    """See `test_llamacpp.loaded`."""
    return llamacpp(tiny_gguf, "plain")


@pytest.fixture
def bench(loaded_ahead: Bench) -> Bench:
    """As if freshly loaded."""
    loaded_ahead.forget()
    return loaded_ahead


def nobody() -> bool:
    """Nobody asks for anything."""
    return False


class Caller:
    """Somebody who asks for something after the runtime has looked so many times."""

    def __init__(self, num_looks: int) -> None:
        self._looks_left = num_looks

    def __call__(self) -> bool:
        self._looks_left -= 1
        return self._looks_left < 0


def chat(*said: str, **changes: Any) -> Generate:
    """Turns of user and assistant, beginning with the user's."""
    roles = ("user", "assistant")
    messages = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(said))
    return generate(Prompt(messages=messages), **{"max_tokens": 40, **changes})


def next_turn(bench: Bench, first: Speech) -> Speech:
    return bench.answer(chat(QUESTION, first.text, "Why?"))


def num_opening(bench: Bench) -> int:
    return len(bench.tokenize(OPENING))


def test_the_next_turn_finds_its_beginning_computed(bench: Bench) -> None:
    """The answer's newest token, the end of its turn and the header of the user's."""
    prompt_tokens = bench.start(asked := chat(QUESTION))
    bench.finish()
    first = bench.speech(asked)
    bench.runtime.work_ahead(nobody)
    assert bench.runtime.state().fault is None
    known = prompt_tokens + first.end.completion_tokens + num_opening(bench)
    assert next_turn(bench, first).end.cached_tokens == known


def test_the_next_turn_says_the_same(bench: Bench) -> None:
    """As without."""
    first = bench.answer(chat(QUESTION))
    plain = next_turn(bench, first).text
    bench.forget()
    first = bench.answer(chat(QUESTION))
    bench.runtime.work_ahead(nobody)
    assert next_turn(bench, first).text == plain


@pytest.mark.parametrize("num_looks", [0, 1, 2, 3, 10])
def test_whoever_asks_interrupts_it(bench: Bench, num_looks: int) -> None:
    """At any moment, and it is begun anew when there is time again."""
    first = bench.answer(chat(QUESTION))
    used = bench.runtime.state().cells_used
    bench.runtime.work_ahead(Caller(num_looks))
    state = bench.runtime.state()
    assert state.fault is None
    assert state.cells_used == used
    bench.runtime.work_ahead(nobody)
    assert bench.runtime.state().cells_used == used + 1 + num_opening(bench)
    assert next_turn(bench, first).end.completion_tokens == 40


def test_it_is_done_once(bench: Bench) -> None:
    """Then there is nothing more to do, and nobody is asked."""
    bench.answer(chat(QUESTION))
    bench.runtime.work_ahead(nobody)
    caller = Caller(0)
    bench.runtime.work_ahead(caller)
    assert not caller._looks_left


def test_nothing_is_begun_for_a_line_of_a_batch(bench: Bench) -> None:
    """It has no next turn."""
    bench.answer(chat(QUESTION, request_class=RequestClass.BATCH))
    assert not bench.runtime.has_ahead
    bench.answer(chat(QUESTION, request_class=RequestClass.BACKGROUND))
    assert bench.runtime.has_ahead


def test_several_chats_that_ended_are_begun(bench: Bench) -> None:
    """Each by itself."""
    asked = [chat(f"{QUESTION} {name}?") for name in ("you", "and", "system")]
    firsts = bench.answers(asked)
    bench.runtime.work_ahead(nobody)
    for name, first in zip(("you", "and", "system"), firsts, strict=True):
        second = bench.answer(chat(f"{QUESTION} {name}?", first.text, "Why?"))
        assert second.end.cached_tokens > first.end.cached_tokens + num_opening(bench)
    assert bench.runtime.state().fault is None


@pytest.mark.parametrize(
    "asked",
    [
        lambda: chat(QUESTION, cache_prompt=False),
        lambda: generate(QUESTION),
        lambda: chat(QUESTION, stop=("e", "a", " ")),
    ],
    ids=["keeps to itself", "no chat", "stopped in its words"],
)
def test_nothing_is_done_for_what_has_no_next_turn(bench: Bench, asked: Any) -> None:
    """Or one that would begin otherwise."""
    bench.answer(asked())
    used = bench.runtime.state().cells_used
    bench.runtime.work_ahead(nobody)
    assert bench.runtime.state().cells_used == used


def test_reasoning_that_the_template_drops_is_not_computed_again_while_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the answer is computed in advance, too, however long the chat before it is."""
    template = (
        "{% for m in messages %}{{ m.role }}: "
        "{{ m.content[8:] if m.role == 'assistant' else m.content }}<|im_end|>{% endfor %}"
    )
    bench = llamacpp(write_tiny_gguf(tmp_path / "thinking.gguf", chat_template=template), "plain")
    prompt_tokens = bench.start(asked := chat(QUESTION))
    bench.finish()
    first = bench.speech(asked)
    new = f"<|im_end|>assistant: {first.text[8:]}<|im_end|>user: "
    monkeypatch.setattr(ahead, "PIECE", len(new))
    bench.runtime.work_ahead(nobody)
    second = next_turn(bench, first)
    assert second.end.cached_tokens > prompt_tokens + len(first.text[8:]) // 8


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}",
        "{{ messages[0].content }}",
    ],
)
def test_a_template_without_a_next_turn_is_no_harm(tmp_path: Path, template: str) -> None:
    """It refuses, or renders none of it."""
    bench = llamacpp(write_tiny_gguf(tmp_path / "short.gguf", chat_template=template), "plain")
    bench.answer(chat(QUESTION))
    bench.runtime.work_ahead(nobody)
    assert bench.runtime.state().fault is None
    assert bench.answer(chat(QUESTION)).end.completion_tokens == 40


def test_no_memory_is_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is full, it stays as it is."""
    bench = llamacpp(write_tiny_gguf(tmp_path / "full.gguf"), "plain", context=256)
    monkeypatch.setattr(ahead, "FURTHEST_AHEAD", 10_000)
    bench.answer(chat("system " * 20, max_tokens=None, ignore_eos=True))
    used = bench.runtime.state().cells_used
    assert used > 256 - num_opening(bench)
    bench.runtime.work_ahead(nobody)
    assert bench.runtime.state().fault is None
    assert bench.runtime.state().cells_used == used


def test_nothing_long_is_tokenized_for_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step loop would wait for that."""
    bench.answer(chat(QUESTION))
    used = bench.runtime.state().cells_used
    monkeypatch.setattr(ahead, "PIECE", 5)
    bench.runtime.work_ahead(nobody)
    assert bench.runtime.state().cells_used == used
    assert not bench.runtime.has_ahead


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_interrupted_and_whenever(bench: Bench, seed: int) -> None:
    """Chats that go on, begin and end in any order; the memory is in order after every step."""
    rnd = random.Random(seed)
    chats: list[list[str]] = [["you"], ["and the model"], ["system " * 40], ["Why?"]]
    for _ in range(40):
        said = rnd.choice(chats)
        if len(said) > 5:
            del said[1:]
        asked = chat(*said, max_tokens=rnd.choice([1, 3, 20]), cache_prompt=rnd.random() < 0.9)
        bench.start(asked)
        if rnd.random() < 0.2:
            bench.step()
            bench.runtime.cancel(asked.id)
        else:
            bench.finish()
            said += [bench.speech(asked).text, rnd.choice(["Why?", "and then"])]
        bench.runtime.work_ahead(rnd.choice([nobody, Caller(rnd.randrange(60))]))
        assert bench.runtime.state().fault is None
