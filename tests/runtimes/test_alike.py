"""What every runtime keeps of its contract, on the same trained model in each one's own format."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from speaking import BUILTIN, GREEDY, Bench, builtin, generate, llamacpp

from pilotlight.core import FinishReason, Prompt, Sampling
from pilotlight.errors import BadRequest, ContextOverflow
from pilotlight.runtimes.running import SMALLEST

HOT = Sampling(temperature=2.0, seed=1)

QUESTION = ({"role": "user", "content": "What can you do?"},)

PLAIN = "one two three four five"

LOADERS: dict[str, Callable[[], Bench]] = {
    "llamacpp": lambda: llamacpp(BUILTIN / "pilot.gguf", "plain"),
    "onnx": lambda: builtin("onnx"),
    "mlx": lambda: builtin("mlx"),
}


@pytest.fixture(scope="session", params=LOADERS)
def loaded(request: pytest.FixtureRequest) -> Bench:
    """Once per runtime."""
    return LOADERS[request.param]()


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """As if freshly loaded."""
    loaded.forget()
    return loaded


def chat(*turns: str, **fields: object) -> object:
    """A chat whose turns are the user's and the assistant's by turns."""
    messages = tuple(
        {"role": "assistant" if number % 2 else "user", "content": turn} for number, turn in enumerate(turns)
    )
    return generate(Prompt(messages=messages), **fields)


def test_loading_tells_how_far_it_is(bench: Bench) -> None:
    """Up to the whole."""
    assert bench.progress == sorted(bench.progress)
    assert bench.progress[-1] == pytest.approx(1)


def test_a_loaded_model_says_what_it_is(bench: Bench) -> None:
    """Numbers for people and for the scheduler."""
    info = bench.info
    assert (info.context, info.context_trained, info.parallel, info.threads) == (1024, 2048, 4, 1)
    assert (info.vocab, info.has_chat_template) == (2048, True)
    assert info.bytes_model > 2e6


def test_an_answer_ends_where_the_model_ends_it(bench: Bench) -> None:
    """With every token accounted for; the end itself is no text."""
    speech = bench.answer(chat("What can you do?", max_tokens=200))
    assert speech.end.reason is FinishReason.STOP
    assert speech.text.startswith("I can")
    assert speech.text.endswith(".")
    assert sum(piece.tokens for piece in speech.pieces) == speech.end.completion_tokens - 1


def test_an_answer_ends_at_its_limit(bench: Bench) -> None:
    """Not one token later."""
    end = bench.answer(chat("What can you do?", max_tokens=7)).end
    assert (end.reason, end.completion_tokens) == (FinishReason.LENGTH, 7)


def test_an_answer_may_be_told_not_to_end(bench: Bench) -> None:
    """For measuring, most often."""
    end = bench.answer(chat("Hello!", max_tokens=150, ignore_eos=True)).end
    assert (end.reason, end.completion_tokens) == (FinishReason.LENGTH, 150)


def test_an_answer_ends_with_the_context(bench: Bench) -> None:
    """Whatever its limit is."""
    end = bench.answer(generate([5] * 1000, max_tokens=10**6, ignore_eos=True)).end
    assert (end.reason, end.completion_tokens) == (FinishReason.LENGTH, 24)


def test_a_stop_string_ends_an_answer(bench: Bench) -> None:
    """Wherever tokens begin and end in it; it is not part of the text."""
    text = bench.answer(chat("What can you do?", max_tokens=40)).text
    for start, end in ((2, 3), (3, 7), (1, 8)):
        speech = bench.answer(chat("What can you do?", max_tokens=40, stop=("\x00", text[start:end])))
        assert speech.text == text[: text.index(text[start:end])]
        assert speech.end.reason is FinishReason.STOP


def test_the_same_seed_gives_the_same_text(bench: Bench) -> None:
    """Another seed, and none, give others."""
    fresh = [
        generate(PLAIN, replace(HOT, seed=seed), cache_prompt=False, ignore_eos=True)
        for seed in (1, 1, 2, None)
    ]
    first, again, other, random = [bench.answer(one).text for one in fresh]
    assert first == again
    assert len({first, other, random}) == 3


def test_answers_of_one_request_differ(bench: Bench) -> None:
    """Each draws for itself, and each ends once; the prompt is computed for one of them."""
    asked = generate("one two three " * 20, HOT, n=4)
    length = bench.start(asked)
    bench.finish()
    assert len({bench.speech(asked, index).text for index in range(4)}) == 4
    cached = sorted(bench.speech(asked, index).end.cached_tokens for index in range(4))
    assert cached == [0] + 3 * [length - 1]


def test_a_bias_forces_a_token(bench: Bench) -> None:
    """A greedy one and a drawn one."""
    (token,) = bench.tokenize("x")
    for sampling in (GREEDY, HOT):
        forced = generate(PLAIN, replace(sampling, logit_bias=((token, 100.0),)), max_tokens=5)
        assert bench.answer(forced).text == "xxxxx"


def test_a_bias_bans_a_token(bench: Bench) -> None:
    """The one that would have come first."""
    first = bench.answer(generate(PLAIN, max_tokens=1)).text
    (token,) = bench.tokenize(first)
    banned = replace(GREEDY, logit_bias=((token, -100.0),))
    assert bench.answer(generate(PLAIN, banned, max_tokens=1)).text not in ("", first)


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2.0}, {"repeat_penalty": 9.0}])
def test_penalties_change_a_greedy_answer(bench: Bench, penalty: dict[str, float]) -> None:
    """What it said before becomes less likely."""
    (token,) = bench.tokenize("x")
    plain = replace(GREEDY, logit_bias=((token, 20.0),))
    alone = bench.answer(generate(PLAIN, plain, max_tokens=60)).text
    assert bench.answer(generate(PLAIN, replace(plain, **penalty), max_tokens=60)).text != alone


@pytest.mark.parametrize("temperature", [1e-40, 1e-38, SMALLEST, 2 * SMALLEST])
def test_the_smallest_temperatures_are_greedy(bench: Bench, temperature: float) -> None:
    """Divided by them, logits would be infinite."""
    greedy, asked = bench.answers([generate(PLAIN), generate(PLAIN, replace(HOT, temperature=temperature))])
    assert asked.text == greedy.text


@pytest.mark.parametrize("sampling", [GREEDY, HOT])
def test_the_smallest_repeat_penalties_are_alike(bench: Bench, sampling: Sampling) -> None:
    """They make it say the same again and again."""
    small, smallest = (
        bench.answer(generate(PLAIN, replace(sampling, repeat_penalty=penalty)))
        for penalty in (SMALLEST, 1e-40)
    )
    assert smallest.text == small.text
    assert smallest.end.completion_tokens == 24


def test_messages_are_rendered_with_the_models_template(bench: Bench) -> None:
    """They cost as many tokens as their text."""
    rendered = "<|im_start|>user\nWhat can you do?<|im_end|>\n<|im_start|>assistant\n"
    cost = bench.start(generate(Prompt(messages=QUESTION)))
    assert cost == bench.start(generate(rendered)) == len(bench.tokenize(rendered, add_special=True))
    bench.finish()


def test_the_next_turn_of_a_conversation_costs_only_its_new_tokens(bench: Bench) -> None:
    """Everything that was said is remembered as it was computed."""
    first = chat("My favorite color is blue.", max_tokens=40)
    prompt_tokens = bench.start(first)
    bench.finish()
    said = bench.speech(first)
    second = bench.answer(
        chat("My favorite color is blue.", said.text, "What's my favorite color?", max_tokens=40)
    )
    assert second.end.cached_tokens == prompt_tokens + said.end.completion_tokens - 1
    assert "blue" in second.text


@pytest.mark.parametrize("said", [1, 50])
def test_tokens_without_text_get_into_no_other_prompt(bench: Bench, said: int) -> None:
    """Though that begins with the same text, and goes on with a control token."""
    mark = "<|im_start|>"
    (token,) = bench.tokenize(mark)
    forced = replace(GREEDY, logit_bias=((token, 100.0),))
    assert bench.answer(generate(PLAIN, forced, max_tokens=said)).text == ""
    num_tokens = bench.start(generate(PLAIN + mark, max_tokens=1))
    bench.finish()
    assert num_tokens == len(bench.tokenize(PLAIN + mark, add_special=True))


def test_a_request_may_keep_to_itself(bench: Bench) -> None:
    """It neither takes nor leaves anything."""
    bench.answer(generate(PLAIN, cache_prompt=False))
    assert bench.runtime.state().cached == 0
    bench.answer(generate(PLAIN))
    assert bench.answer(generate(PLAIN, cache_prompt=False)).end.cached_tokens == 0


def test_many_at_once_say_what_each_says_alone(bench: Bench) -> None:
    """More than run side by side, some of them long before others."""
    questions = ["What can you do?", "Hello!", "Count from 3 to 12.", "Who are you?", "Tell me a story."]
    alone = [bench.answer(chat(question, max_tokens=60, cache_prompt=False)).text for question in questions]
    together = bench.answers(chat(question, max_tokens=60) for question in questions)
    # Rounding depends on what is computed together, and near ties may fall the other way.
    same = sum(speech.text == text for speech, text in zip(together, alone, strict=True))
    assert same >= len(questions) / 2
    assert all(speech.end.reason is FinishReason.STOP or len(speech.text) > 50 for speech in together)


def test_it_says_for_whom_it_computed(bench: Bench) -> None:
    """Tokens of prompts that were computed, and those of answers; each time is told once."""
    short, long = generate("one two", max_tokens=5), generate(PLAIN, max_tokens=9)
    bench.runtime.take_computed()
    num_tokens = {one.id: bench.start(one) for one in (short, long)}
    bench.finish()
    parts = {part.id: part for part in bench.runtime.take_computed()}
    for one in (short, long):
        part, said = parts[one.id], bench.speech(one).end
        assert part.prefill_tokens == num_tokens[one.id] - said.cached_tokens
        # The first token of an answer comes of the prompt's computation.
        assert part.decode_tokens == said.completion_tokens - 1
        assert part.prefill_s > 0 and part.decode_s > 0
    assert bench.runtime.take_computed() == ()


def test_a_cancel_in_the_middle_of_a_prompt_frees_it_at_once(bench: Bench) -> None:
    """What is computed of it is kept for the next who asks."""
    long = generate([5] * 900)
    bench.start(long)
    bench.step()
    bench.runtime.cancel(long.id)
    state = bench.runtime.state()
    assert (state.active, state.waiting, bench.runtime.has_work) == (0, 0, False)
    assert bench.answer(generate([5] * 900, max_tokens=1)).end.cached_tokens > 0


def test_a_cancel_ends_all_answers_of_a_request_and_no_other(bench: Bench) -> None:
    """Also those that wait, and in the middle of an answer."""
    gone, other = (
        generate(PLAIN, HOT, n=4, ignore_eos=True),
        generate("what is", max_tokens=5, ignore_eos=True),
    )
    bench.start(gone)
    bench.start(other)
    while not bench.speech(gone).pieces:
        bench.step()
    bench.runtime.cancel(gone.id)
    bench.finish()
    assert not any(bench.speech(gone, index).done for index in range(4))
    assert bench.speech(other).end.completion_tokens == 5


def test_an_unknown_request_can_be_cancelled(bench: Bench) -> None:
    """It may just have ended."""
    bench.runtime.cancel(10**9)
    assert bench.runtime.state().fault is None


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(bench: Bench) -> None:
    """The answer needs a token too."""
    with pytest.raises(
        ContextOverflow, match=r"has 1024 tokens; the context of this model holds 1024"
    ) as caught:
        bench.start(generate([5] * 1024))
    assert caught.value.param == "prompt"
    assert bench.answer(generate([5] * 1023)).end.completion_tokens == 1


REFUSED: dict[str, Callable[[Bench], object]] = {
    "the prompt is empty": lambda bench: bench.start(generate("")),
    "there is no token 2048": lambda bench: bench.start(generate([1, bench.info.vocab])),
    "there is no token -1": lambda bench: bench.start(generate([-1])),
    "logit_bias: there is no token": lambda bench: bench.start(
        generate(PLAIN, replace(GREEDY, logit_bias=((10**6, 1.0),)))
    ),
    "n is 5; this model runs 4": lambda bench: bench.start(generate(PLAIN, n=5)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_done_is_refused(bench: Bench, reason: str) -> None:
    """Before it takes a sequence."""
    with pytest.raises(BadRequest, match=reason):
        REFUSED[reason](bench)
    assert not bench.runtime.has_work


def test_all_formats_are_the_same_model() -> None:
    """The same tokens for the same text, the same ends, and the same answer."""
    benches = [load() for load in LOADERS.values()]
    text = "<|im_start|>user\nWhat's é😀 in  12 words?<|im_end|>\n<|endoftext|><think>"
    assert len({tuple(bench.tokenize(text, add_special=True)) for bench in benches}) == 1
    vocabularies = [bench.runtime._prompts._vocabulary for bench in benches]
    assert len({vocabulary.end_tokens for vocabulary in vocabularies}) == 1
    for token in range(2048):
        assert len({vocabulary.piece(token) for vocabulary in vocabularies}) == 1, token
        assert len({vocabulary.is_control(token) for vocabulary in vocabularies}) == 1, token
        if vocabularies[0].is_control(token):
            assert len({vocabulary.control_text(token) for vocabulary in vocabularies}) == 1, token
    answers = [bench.answer(generate(Prompt(messages=QUESTION), max_tokens=60)) for bench in benches]
    assert len({answer.text for answer in answers}) == 1


def test_what_is_at_rest_can_be_given_back(bench: Bench) -> None:
    """Parked or in its row; who runs is not disturbed, and the same question is computed anew."""
    asked = [generate(f"{word} {PLAIN} {PLAIN}", max_tokens=4) for word in ("first", "second")]
    whole = [speech.text for speech in bench.answers(asked)]
    running = generate(PLAIN, max_tokens=8)
    expected = bench.answer(generate(PLAIN, max_tokens=8, cache_prompt=False)).text
    bench.start(running)
    bench.step()
    bench.runtime.trim()
    bench.finish()
    assert bench.speech(running).text == expected
    bench.runtime.trim()
    assert bench.runtime.state().cached == 0
    assert bench.runtime.state().cells_used == 0
    again = bench.answer(generate(f"first {PLAIN} {PLAIN}", max_tokens=4))
    assert (again.text, again.end.cached_tokens) == (whole[0], 0)
