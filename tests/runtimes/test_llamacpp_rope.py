"""Models with rotary factors for short and for long contexts keep to one set, however their memory grows."""

from pathlib import Path

import gguf
import pytest
from speaking import Bench, generate, llamacpp

from gguf_factory import write_tiny_gguf
from pilotlight.core import Archive
from pilotlight.runtimes.llamacpp.layout import UNIT

ORIGINAL = 2 * UNIT

CONTEXT = 16 * UNIT

PROMPT = [number % 180 + 20 for number in range(150)]

OTHER = [number % 170 + 25 for number in range(4 * UNIT)]
"""The memory has to grow beyond the original context for it."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "longrope.gguf", context=CONTEXT, original_context=ORIGINAL)


def say(bench: Bench, **fields: bool) -> str:
    """The answer to the prompt."""
    return bench.answer(generate(PROMPT, max_tokens=40, ignore_eos=True, **fields)).text


def test_answers_are_the_same_before_and_after_the_memory_grew(file: Path) -> None:
    """Computed anew, and from what was computed before."""
    bench = llamacpp(file, "plain", context=CONTEXT)
    before = say(bench)
    bench.answer(generate(OTHER, max_tokens=5))
    assert say(bench) == before
    assert say(bench, cache_prompt=False) == before


def test_what_runs_goes_on_when_the_memory_grows_beyond_the_original_context(file: Path) -> None:
    """What was computed with one set of factors is never looked at with the other."""
    bench = llamacpp(file, "plain", context=CONTEXT)
    alone = say(bench)
    bench.forget()
    asked = generate(PROMPT, max_tokens=40, ignore_eos=True)
    bench.start(asked)
    for _ in range(5):
        bench.step()
    bench.answer(generate(OTHER, max_tokens=5))
    assert bench.speech(asked).text == alone


def test_a_worker_that_allows_no_more_than_the_original_context_takes_the_short_factors(file: Path) -> None:
    """As the same weights without any factors: the short ones are all 1 here."""
    plain = write_tiny_gguf(file.with_name("plain.gguf"), context=CONTEXT)
    assert say(llamacpp(file, "plain", context=ORIGINAL)) == say(llamacpp(plain, "plain", context=ORIGINAL))
    assert say(llamacpp(file, "plain", context=CONTEXT)) != say(llamacpp(plain, "plain", context=CONTEXT))


def test_one_set_has_no_use_for_what_the_other_computed(file: Path, tmp_path: Path) -> None:
    """A conversation on disk is read again only by a worker with the same factors."""
    archive = Archive(str(tmp_path / "conversations"), max_bytes=10**8, max_age_s=1000.0, digest="tiny")
    short = llamacpp(file, "plain", context=ORIGINAL, archive=archive)
    say(short)
    assert short.runtime.save(within_s=60.0).count == 1
    cached = [
        llamacpp(file, "plain", context=context, archive=archive)
        .answer(generate(PROMPT, max_tokens=5))
        .end.cached_tokens
        for context in (CONTEXT, ORIGINAL)
    ]
    assert cached == [0, len(PROMPT) - 1]


def test_factors_may_be_in_a_later_part(file: Path) -> None:
    """As where the first of several files has no tensors."""
    parts = [file.with_name(f"parts-0000{number}-of-00002.gguf") for number in (1, 2)]
    split(file, parts)
    assert say(llamacpp(parts[0], "plain", context=CONTEXT)) == say(llamacpp(file, "plain", context=CONTEXT))
    assert llamacpp(parts[0], "plain", context=CONTEXT).runtime._decoder._llama.rope_variant == "long"


def split(file: Path, parts: list[Path]) -> None:
    """Put what the file says in the first part, and its tensors in the other."""
    reader = gguf.GGUFReader(file)
    for number, part in enumerate(parts):
        writer = gguf.GGUFWriter(part, "llama")
        for name, field in reader.fields.items():
            if not number and not name.startswith("GGUF.") and name != "general.architecture":
                kind, of = field.types[0], field.types[-1] if len(field.types) > 1 else None
                writer.add_key_value(name, field.contents(), kind, of)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", len(parts))
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors if number else ():
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
