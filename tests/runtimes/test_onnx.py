"""The ONNX runtime on the built-in model: rows side by side, and what the library itself says."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speaking import BUILTIN, Bench, OnnxBench, generate

from pilotlight.core import Prompt
from pilotlight.runtimes.folder import Folder
from pilotlight.runtimes.onnx.export import Export
from pilotlight.runtimes.onnx.native import Graph, library_version

MODEL = BUILTIN / "pilot-onnx"

TEMPLATE = "{{ bos_token }}!"

LONG = [5, 6, 7, 8] * 60

Compute = Callable[[int, Sequence[Sequence[int]], Sequence[int]], Any]


@pytest.fixture(scope="session")
def loaded() -> OnnxBench:
    """Once for all tests."""
    return OnnxBench(MODEL)


@pytest.fixture
def bench(loaded: OnnxBench) -> OnnxBench:
    """As if freshly loaded."""
    loaded.forget()
    return loaded


@pytest.fixture(scope="session")
def graph() -> Graph:
    """Three rows."""
    graph = Graph(Export.read(MODEL), threads=1)
    graph.open(num_rows=3, context=512)
    return graph


@pytest.fixture
def runs(bench: OnnxBench, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is computed: how many rows and how many tokens of each, run by run."""
    seen: list[tuple[int, int]] = []
    compute = bench.runtime._graph.compute

    def look(first: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Any:
        seen.append((len(tokens), len(tokens[0])))
        return compute(first, tokens, starts)

    monkeypatch.setattr(bench.runtime._graph, "compute", look)
    return seen


def test_sequences_that_generate_are_computed_together(bench: OnnxBench, runs: list[tuple[int, int]]) -> None:
    """One run of the graph for all of them, step by step."""
    asked = [generate([token] * 9, max_tokens=30, ignore_eos=True) for token in range(5, 9)]
    for one in asked:
        bench.start(one)
    while not all(bench.runtime._sequences[index].is_generating for index in range(4)):
        bench.step()
    runs.clear()
    bench.step()
    assert runs == [(4, 1)]
    bench.finish()


def test_a_prompt_is_computed_between_the_tokens_of_others(
    bench: OnnxBench, runs: list[tuple[int, int]]
) -> None:
    """Nobody waits for all of it."""
    bench.runtime._pace._token_s = 0.01
    talking, reading = generate("hi", max_tokens=40, ignore_eos=True), generate(LONG, max_tokens=1)
    bench.start(talking)
    bench.step()
    bench.start(reading)
    while not bench.speech(reading).done:
        runs.clear()
        bench.step()
        assert [run for run in runs if run[1] == 1] == [(1, 1)]
        assert sum(tokens for _, tokens in runs) <= 112
    bench.finish()
    assert bench.speech(talking).end.completion_tokens == 40


def test_rows_of_any_length_do_not_disturb_each_other(graph: Graph) -> None:
    """Logits of a row among others are those of it alone, up to a small part of their spread."""
    prompts = [LONG[:100], LONG[:7], LONG[2:60]]
    alone = []
    for prompt in prompts:
        graph.compute(0, [prompt], [0])
        alone.append(graph.compute(0, [[9]], [len(prompt)])[0].copy())
    for row, prompt in enumerate(prompts):
        graph.compute(row, [prompt], [0])
    together = graph.compute(0, [[9], [9], [9]], [len(prompt) for prompt in prompts])
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() < 0.15 * one.std()


def test_a_filler_leaves_no_trace(graph: Graph) -> None:
    """A prompt goes on over what was written in its row for nobody."""
    fresh = graph.compute(1, [LONG], [0])[0].copy()
    graph.compute(0, [LONG[:50]], [0])
    graph.compute(1, [LONG[:80]], [0])
    graph.compute(0, [[7], [0]], [50, 80])
    again = graph.compute(1, [LONG[80:]], [80])[0]
    np.testing.assert_array_equal(fresh, again)


def test_a_row_can_be_copied_saved_and_restored(graph: Graph) -> None:
    """In whole or in part, to any row."""
    fresh = graph.compute(0, [LONG], [0])[0].copy()
    graph.copy(0, 2, 100)
    np.testing.assert_array_equal(graph.compute(2, [LONG[100:]], [100])[0], fresh)
    saved = graph.save(2, 200)
    graph.compute(1, [[3] * 240], [0])
    graph.restore(1, saved, 150)
    np.testing.assert_array_equal(graph.compute(1, [LONG[150:]], [150])[0], fresh)


def test_a_row_that_is_cleared_takes_no_memory(graph: Graph) -> None:
    """And others keep what they hold."""
    kept = graph.compute(0, [LONG], [0])[0].copy()
    graph.compute(1, [LONG], [0])
    graph.clear(1)
    assert all(not values.any() for values in graph.save(1, len(LONG)))
    again = graph.compute(0, [LONG[-1:]], [len(LONG) - 1])[0]
    assert np.abs(again - kept).max() < 0.15 * kept.std()


def test_memory_is_given_back_when_nothing_runs(bench: OnnxBench) -> None:
    """What is parked is all that stays of a conversation."""
    bench.answer(generate(LONG, max_tokens=20, ignore_eos=True))
    assert bench.runtime.state().cached == 1
    assert not any(cells.array[0].any() for cells in bench.runtime._graph._cells)


def test_who_stays_is_moved_when_others_leave(bench: OnnxBench) -> None:
    """Rows stay without gaps, and each goes on where it was."""
    alone = bench.answer(generate([9] * 20, max_tokens=30, cache_prompt=False)).text
    bench.forget()
    gone = [generate([token] * 20, max_tokens=200, ignore_eos=True) for token in (5, 6)]
    stays = generate([9] * 20, max_tokens=30)
    for one in [*gone, stays]:
        bench.start(one)
    while not bench.speech(stays).pieces:
        bench.step()
    for one in gone:
        bench.runtime.cancel(one.id)
    assert [sequence.slot for sequence in bench.runtime._sequences] == [0]
    bench.finish()
    assert bench.speech(stays).text[:20] == alone[:20]


def test_the_context_is_no_longer_than_the_graph_knows(tmp_path: Path) -> None:
    """Beyond the trained one there are no positions; /v1/models tells the real one."""
    assert OnnxBench(MODEL, context=100_000).info.context == 2048


def test_a_loaded_model_says_what_computes_it(bench: OnnxBench) -> None:
    """Library, version and device."""
    info = bench.info
    assert (info.runtime, info.version, info.description) == ("onnx", library_version(), "llama on CPU")
    assert not info.capabilities.live_threads
    assert info.bytes_model == sum(
        (MODEL / name).stat().st_size for name in ("model.onnx", "model.onnx.data")
    )


def test_threads_stay_as_they_were_loaded(bench: OnnxBench) -> None:
    """And the state says so."""
    bench.runtime.set_threads(7)
    assert bench.runtime.state().threads == 1


# --- beside the library's own generator ---


@pytest.fixture(scope="session")
def genai() -> Any:
    """onnxruntime-genai, telling nobody."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    library = pytest.importorskip("onnxruntime_genai")
    library.disable_telemetry_events()
    return library


TEXTS = [
    "<|im_start|>user\nWhat can you do?<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>It's  é, 😀 and\n\n 12345",
    "<think>\n hm</think> <tool_call>{}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_library_s_own_tokens(genai: Any, bench: OnnxBench, text: str) -> None:
    """Special tokens, begin of text and all."""
    expected = genai.Tokenizer(str(MODEL)).encode(text).tolist()
    assert bench.tokenize(text, add_special=True) == expected


def test_the_ends_are_the_library_s_own(genai: Any) -> None:
    """Every token that ends a turn."""
    export = Export.read(MODEL)
    folder = Folder(MODEL, num_vocab=export.num_vocab, end_tokens=export.end_tokens)
    assert folder.end_tokens == set(genai.Tokenizer(str(MODEL)).eos_token_ids.tolist())


def test_greedy_text_is_the_library_s_own(genai: Any, bench: OnnxBench) -> None:
    """Token for token."""
    question = Prompt(messages=({"role": "user", "content": "What can you do?"},))
    model = genai.Model(str(MODEL))
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=200, do_sample=False)
    generator = genai.Generator(model, params)
    prompt = bench.tokenize(TEXTS[0], add_special=True)
    generator.append_tokens(np.array(prompt, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    answer = generator.get_sequence(0)[len(prompt) :]
    assert bench.answer(generate(question, max_tokens=150)).text == genai.Tokenizer(model).decode(answer)


# --- templates ---


@pytest.mark.parametrize(
    "template", [TEMPLATE, [{"name": "x", "template": "?"}, {"name": "default", "template": TEMPLATE}]]
)
def test_the_template_may_be_in_the_tokenizer_s_configuration(tmp_path: Path, template: object) -> None:
    """Alone, or as the default among several."""
    config = json.loads((MODEL / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer.json").write_bytes((MODEL / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    found = Folder(tmp_path, num_vocab=2048, end_tokens=()).template(None)
    assert found is not None
    assert found.render([], {}) == "<|endoftext|>!"


def test_a_template_that_was_set_wins(tmp_path: Path) -> None:
    """Over the folder's own."""
    folder = Folder(MODEL, num_vocab=2048, end_tokens=())
    template = folder.template("{{ eos_token }}")
    assert template is not None
    assert template.render([], {}) == "<|im_end|>"


def test_a_folder_may_have_no_template(tmp_path: Path) -> None:
    """Nor special tokens."""
    (tmp_path / "tokenizer.json").write_bytes((MODEL / "tokenizer.json").read_bytes())
    folder = Folder(tmp_path, num_vocab=2048, end_tokens=(7,))
    assert folder.template(None) is None
    assert (folder.special_text("bos"), folder.end_tokens, folder.adds_bos) == ("", {7}, False)


def test_llama_cpp_and_onnx_load_beside_each_other(bench: OnnxBench) -> None:
    """In one process, as here: neither's threads or symbols are in the other's way."""
    other = Bench(BUILTIN / "pilot.gguf")
    assert other.answer(generate("hi", max_tokens=2)).end.completion_tokens <= 2
    assert bench.answer(generate("hi", max_tokens=2)).end.completion_tokens <= 2
