"""The ONNX runtime on the built-in model, and what the library itself says."""

import json
import mmap
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speaking import BUILTIN, Bench, builtin, generate, llamacpp
from tokenizers import Tokenizer, decoders
from tokenizers.processors import TemplateProcessing

from pilotlight.core import Prompt
from pilotlight.runtimes.folder import Folder
from pilotlight.runtimes.onnx.cells import Cells
from pilotlight.runtimes.onnx.export import Export
from pilotlight.runtimes.onnx.native import import_onnxruntime

MODEL = BUILTIN / "pilot-onnx"

TEMPLATE = "{{ bos_token }}!"

LONG = [5, 6, 7, 8] * 60

OWN_ENDS = {"<|endoftext|>", "<|im_end|>"}


@pytest.fixture(scope="session")
def loaded() -> Bench:
    """Once for all tests."""
    return builtin("onnx")


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """As if freshly loaded."""
    loaded.forget()
    return loaded


def test_a_row_that_is_cleared_takes_no_memory(bench: Bench) -> None:
    """And others keep what they hold."""
    graph = bench.runtime._decoder
    for row in (0, 1):
        graph.read(row, LONG, 0)
    graph.clear(1)
    assert not any(values.any() for values in graph.save(1, len(LONG)))
    assert all(values.any() for values in graph.save(0, len(LONG)))


@pytest.mark.parametrize("num_left", [0, 100])
def test_what_is_cut_off_a_row_takes_no_memory(bench: Bench, num_left: int) -> None:
    """But for parts of pages, of each head; what is left, and other rows, keep what they hold."""
    graph = bench.runtime._decoder
    for row in (0, 1):
        graph.read(row, LONG, 0)
    kept, other = graph.save(0, num_left), graph.save(1, len(LONG))
    graph.cut(0, num_left)
    behind = num_left + graph._cells[0].tokens_per_page if num_left else 0
    assert not any(values[:, behind:].any() for values in graph.save(0, len(LONG)))
    np.testing.assert_array_equal(graph.save(0, num_left), kept)
    np.testing.assert_array_equal(graph.save(1, len(LONG)), other)
    graph.clear(1)


def test_nothing_is_given_back_for_a_few_tokens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each head of each layer would cost a call, and gain less than a page."""
    graph = bench.runtime._decoder
    cuts: list[int] = []
    monkeypatch.setattr(Cells, "cut", lambda cells, row, num_tokens, held: cuts.append(held))
    graph.read(0, LONG, 0)
    for num_tokens in (len(LONG) - 1, 100, 99):
        graph.cut(0, num_tokens)
    assert cuts == [len(LONG)] * len(graph._cells)


def test_rows_take_no_more_than_what_runs_and_what_is_parked(bench: Bench) -> None:
    """A long chat that rested leaves its row to a short one, which another moves up to."""
    graph = bench.runtime._decoder
    bench.answer(generate(LONG, max_tokens=20, ignore_eos=True))
    short, shorter = generate([9] * 9, max_tokens=20), generate([8] * 9, max_tokens=60, ignore_eos=True)
    for one in (short, shorter):
        bench.start(one)
    while not bench.speech(short).done:
        bench.step()
    assert graph._held[0] < 100
    assert not any(values[:, 100:].any() for values in graph.save(0, len(LONG)))
    bench.finish()


def test_the_library_tells_nobody_of_itself(tmp_path: Path) -> None:
    """It would keep a number for this machine, and what it is to upload, in the user's home."""
    program = (
        "import sys; from pilotlight.runtimes.onnx.native import import_onnxruntime; "
        "import_onnxruntime().InferenceSession(sys.argv[1])"
    )
    command = [sys.executable, "-c", program, str(MODEL / "model.onnx")]
    subprocess.run(command, env={"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="nothing tells how memory is mapped")
def test_memory_of_rows_is_in_small_pages() -> None:
    """A short row has to touch every head, and would take 2 MiB for each."""
    cells = Cells((2, 4, 1024, 64), np.float32)
    address = cells.array.ctypes.data
    flags: list[str] = []
    holds = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            holds = int(found[1], 16) <= address < int(found[2], 16)
        elif holds and line.startswith("VmFlags:"):
            flags = line.split()
    assert "nh" in flags


def test_memory_is_given_back_when_nothing_runs(bench: Bench) -> None:
    """A conversation is parked when the next one comes, and one that keeps to itself leaves nothing."""
    bench.answer(generate(LONG, max_tokens=20, ignore_eos=True))
    bench.answer(generate(LONG[::-1], cache_prompt=False))
    assert bench.runtime.state().cached == 1
    assert not any(values.any() for values in bench.runtime._decoder.save(0, len(LONG)))


def test_memory_that_is_not_given_back_does_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, whose pages stay: what follows in a row that was cleared does not see what was there."""
    monkeypatch.delattr(mmap, "MAP_PRIVATE")
    logits = []
    for graph in (bench.runtime._decoder, builtin("onnx").runtime._decoder):
        graph.read(0, LONG, 0)
        graph.clear(0)
        graph.read(0, [9, 8, 7], 0)
        graph.read(1, [7, 8, 9], 0)
        logits.append(graph.compute(0, [[5], [6]], [3, 3]).copy())
        graph.clear(1)
        graph.clear(0)
    np.testing.assert_array_equal(*logits)


def test_a_loaded_model_says_what_computes_it(bench: Bench) -> None:
    """Library, version and device."""
    info = bench.info
    assert (info.runtime, info.version, info.description) == (
        "onnx",
        import_onnxruntime().__version__,
        "llama on cpu",
    )
    assert not info.capabilities.live_threads
    assert info.bytes_model == sum(
        (MODEL / name).stat().st_size for name in ("model.onnx", "model.onnx.data")
    )


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
def test_text_becomes_the_library_s_own_tokens(genai: Any, bench: Bench, text: str) -> None:
    """Special tokens, begin of text and all."""
    expected = genai.Tokenizer(str(MODEL)).encode(text).tolist()
    assert bench.tokenize(text, add_special=True) == expected


def test_a_tokenizer_neither_cuts_nor_fills_up(tmp_path: Path) -> None:
    """Though it may have been saved as it was for training."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours, plain = (Folder(path, num_vocab=2048, end_tokens=()) for path in (tmp_path, MODEL))
    for text in ("hi", "one two three four five " * 5):
        tokens = ours.tokenize(text, add_special=True)
        assert tokens == plain.tokenize(text, add_special=True)
        assert len(tokens) != 8


@pytest.mark.parametrize("text", ["<|im_start|><|im_end|>hi", "<|im_start|> <|im_end|> hi", "hi"])
def test_what_a_tokenizer_adds_is_not_added_twice(tmp_path: Path, text: str) -> None:
    """Several tokens, as of GLM-4, whose template writes them, too; none of them is a bos token."""
    plain = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    prefix = ["<|im_start|>", "<|im_end|>"]
    special = [(token, plain.token_to_id(token)) for token in prefix]
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single=[*prefix, "$A"], special_tokens=special)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    folder = Folder(tmp_path, num_vocab=2048, end_tokens=())
    tokens = plain.encode(text, add_special_tokens=False).ids
    added = [] if text.startswith("<|im_start|><") else [token for _, token in special]
    assert folder.tokenize(text, add_special=True) == added + tokens
    assert folder.tokenize(text, add_special=False) == tokens


def test_the_ends_are_the_library_s_own(genai: Any) -> None:
    """Every token that ends a turn."""
    export = Export.read(MODEL)
    folder = Folder(MODEL, num_vocab=export.num_vocab, end_tokens=export.end_tokens)
    assert folder.end_tokens == set(genai.Tokenizer(str(MODEL)).eos_token_ids.tolist())


def test_ends_that_the_logits_do_not_reach_are_none() -> None:
    """Of those that a folder names, and of the tokenizer: nobody can say them, nor forbid them."""
    ends = (7, -1, 2043)
    assert Folder(MODEL, num_vocab=2044, end_tokens=ends).end_tokens == {7, 2041, 2043}
    assert Folder(MODEL, num_vocab=2043, end_tokens=ends).end_tokens == {7, 2041}


def test_greedy_text_is_the_library_s_own(genai: Any, bench: Bench) -> None:
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


def with_control(path: Path, *control: str, end: str = "") -> Folder:
    """A folder whose tokenizer has control tokens besides its own."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.add_special_tokens([*control])
    tokenizer.save(str(path / "tokenizer.json"))
    ends = tokenizer.encode(end, add_special_tokens=False).ids
    return Folder(path, num_vocab=4096, end_tokens=ends)


def spoken(path: Path, *control: str, end: str = "") -> list[bytes]:
    """The pieces of such tokens."""
    folder = with_control(path, *control, end=end)
    return [folder.piece(token) for token in folder.tokenize("".join(control), add_special=False)]


def test_marks_of_reasoning_are_in_the_text(tmp_path: Path) -> None:
    """Also where they are control tokens, unless they end the answer."""
    marks = ("[THINK]", "</think>", "<|START_THINKING|>")
    assert spoken(tmp_path, *marks) == [mark.encode() for mark in marks]
    assert spoken(tmp_path, *marks, end="</think>") == [b"[THINK]", b"", b"<|START_THINKING|>"]


def test_channels_are_in_the_text(tmp_path: Path) -> None:
    """As gpt-oss has them; of another model, the same marks are as silent as they were."""
    marks = ("<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>")
    assert spoken(tmp_path, *marks) == [b""] * 5
    with_channels = ("<|channel|>", *marks)
    assert spoken(tmp_path, *with_channels) == [*(mark.encode() for mark in with_channels[:-2]), b"", b""]


@pytest.mark.parametrize(
    ("control", "ends"),
    [
        (("<end_of_turn>", "<start_of_turn>"), {"<end_of_turn>"}),
        (("<|end|>", "<|call|>"), {"<|end|>", "<|call|>"}),
        (("<|end|>", "<|call|>", "<|return|>"), {"<|call|>", "<|return|>"}),
        (("<|end|>", "<|calls|>", "<|flush|>"), {"<|calls|>", "<|flush|>"}),
    ],
)
def test_ends_of_turns_are_known_by_their_text(
    tmp_path: Path, control: tuple[str, ...], ends: set[str]
) -> None:
    """Though no file names them, as llama.cpp knows them; some models end parts of an answer with one."""
    folder = with_control(tmp_path, *control)
    assert {folder.control_text(token) for token in folder.end_tokens} == OWN_ENDS | ends


def test_a_mark_that_is_no_control_token_ends_nothing(tmp_path: Path) -> None:
    """Gemma's vocabulary has the marks of HTML, and `</s>` ends what is struck through."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.add_tokens(["</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Folder(tmp_path, num_vocab=4096, end_tokens=()).end_tokens == {2041, 2043}


def test_other_ends_count_unless_they_are_ordinary_text() -> None:
    """A configuration may still have the number of another tokenizer's."""
    found = Folder(MODEL, num_vocab=2048, end_tokens=(7,), other_ends=(2, 2042, 5000))
    assert found.end_tokens == {7, 2041, 2042, 2043}


@pytest.mark.parametrize(
    ("decoder", "piece"), [(decoders.Metaspace(), "  "), (decoders.ByteLevel(), "\u2581\u2581")]
)
def test_runs_of_spaces_may_have_been_added(tmp_path: Path, decoder: decoders.Decoder, piece: str) -> None:
    """As to Gemma's vocabulary; where letters stand for bytes, the sign is itself."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.decoder = decoder
    tokenizer.add_tokens(["\u2581\u2581"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    token = tokenizer.token_to_id("\u2581\u2581")
    assert Folder(tmp_path, num_vocab=4096, end_tokens=()).piece(token) == piece.encode()


@pytest.mark.parametrize("runtime", ["onnx", "mlx"])
def test_suppressed_tokens_are_never_picked(tmp_path: Path, runtime: str) -> None:
    """Those of the folder that are tokens; ends may be forbidden beside them."""
    path = Path(shutil.copytree(BUILTIN / f"pilot-{runtime}", tmp_path / "m"))
    asked = generate("hi", max_tokens=1, ignore_eos=True)
    first = Bench(runtime, path)
    (token,) = first.tokenize(first.answer(asked).text, add_special=False)[:1]
    config = {"suppress_tokens": [token, 2**40, -1, 1.5, True, "5", None]}
    (path / "generation_config.json").write_text(json.dumps(config))
    bench = Bench(runtime, path)
    assert bench.runtime._vocabulary.suppressed == {token}
    assert bench.answer(generate("hi", max_tokens=1, ignore_eos=True)).text != first.speech(asked).text


@pytest.mark.parametrize("found", [None, 5, {}, []])
def test_a_folder_may_suppress_nothing(tmp_path: Path, found: object) -> None:
    """In whichever words."""
    (tmp_path / "tokenizer.json").write_bytes((MODEL / "tokenizer.json").read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"suppress_tokens": found}))
    assert not Folder(tmp_path, num_vocab=2048, end_tokens=()).suppressed


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
    assert (folder.special_text("bos"), folder.end_tokens, folder.adds_bos) == ("", {7, 2041, 2043}, False)


def test_llama_cpp_and_onnx_load_beside_each_other(bench: Bench) -> None:
    """In one process, as here: neither's threads or symbols are in the other's way."""
    other = llamacpp(BUILTIN / "pilot.gguf")
    assert other.answer(generate("hi", max_tokens=2)).end.completion_tokens <= 2
    assert bench.answer(generate("hi", max_tokens=2)).end.completion_tokens <= 2
