"""Conversations that outlive the runtime that computed them, on the built-in model in every format."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace
from speaking import BUILTIN, Bench, Speech, builtin, generate

from mlx_factory import write_random
from pilotlight.core import Archive, Loading, Prompt, RequestClass
from pilotlight.runtimes.archive import keeper, record
from pilotlight.runtimes.llamacpp.library import import_llama
from pilotlight.runtimes.llamacpp.native import Llama
from pilotlight.runtimes.transcripts import NUM_REMEMBERED
from pilotlight.worker.protocol import Saved

FIRST = "My favorite color is blue. " + "Please remember it well, my friend. " * 6

SECOND = "What's my favorite color?"

CELLS = 4 * (3 + 64)
"""Where they begin in llama.cpp's state, as it is packed."""

Load = Callable[..., Bench]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "conversations"), max_bytes=10**8, max_age_s=1000.0, digest="pilot")


@pytest.fixture(params=["llamacpp", "onnx", "mlx"])
def load(request: pytest.FixtureRequest, archive: Archive) -> Load:
    """A fresh runtime each time it is called, with the archive."""
    return lambda **settings: builtin(request.param, **{"archive": archive} | settings)


@pytest.fixture(params=["llamacpp", "onnx", "mlx"])
def load_any(request: pytest.FixtureRequest, archive: Archive, tmp_path: Path) -> Load:
    """The same where nobody cares what is said: of random weights with MLX, which takes its time on a CPU."""
    if request.param != "mlx":
        return lambda **settings: builtin(request.param, **{"archive": archive} | settings)
    (folder := tmp_path / "mlx").mkdir()
    write_random(folder, num_hidden_layers=2, max_position_embeddings=2048)
    return lambda **settings: Bench("mlx", folder, **{"archive": archive} | settings)


@pytest.fixture
def load_one(archive: Archive) -> Load:
    """With llama.cpp, for what is alike in all."""
    return lambda **settings: builtin("llamacpp", **{"archive": archive} | settings)


def files(archive: Archive) -> list[Path]:
    """The records of an archive, oldest first."""
    folder = Path(archive.folder)
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime) if folder.exists() else []


def chat(*turns: str, **fields: Any) -> Any:
    """A chat whose turns are the user's and the assistant's by turns."""
    roles = ("user", "assistant")
    messages = tuple({"role": roles[number % 2], "content": turn} for number, turn in enumerate(turns))
    return generate(Prompt(messages=messages), **{"max_tokens": 40} | fields)


def begin(bench: Bench, **fields: Any) -> str:
    """The first turn; its answer."""
    return bench.answer(chat(FIRST, **fields)).text


def go_on(bench: Bench, answer: str) -> Speech:
    """The second one."""
    return bench.answer(chat(FIRST, answer, SECOND))


def save(bench: Bench) -> Saved:
    return bench.runtime.save(within_s=60.0)


def test_a_conversation_goes_on_as_if_nothing_had_been(load: Load) -> None:
    """As many tokens are reused as without a break, and the answer is the same."""
    first = load()
    answer = begin(first)
    assert save(first).count == 1
    whole = go_on(first, answer)
    broken = go_on(load(), answer)
    assert broken.end.cached_tokens == whole.end.cached_tokens > 60
    assert broken.text == whole.text
    assert "blue" in broken.text


def test_what_is_forgotten_for_want_of_memory_is_saved_first(load_one: Load) -> None:
    """The worker that goes afterwards has nothing left to save."""
    first = load_one()
    answer = begin(first)
    first.runtime.trim()
    assert save(first).count == 0
    assert go_on(load_one(), answer).end.cached_tokens > 60


def test_what_was_forgotten_is_found_again_by_the_same_worker(load: Load) -> None:
    """As often as memory gets short."""
    bench = load()
    answer = begin(bench)
    whole = go_on(bench, answer)
    for _ in range(2):
        bench.runtime.trim()
        again = go_on(bench, answer)
        assert (again.text, again.end.cached_tokens > 60) == (whole.text, True)


def test_it_fits_other_memory(load_one: Load) -> None:
    """With another context, and more rows or fewer."""
    first = load_one()
    answer = begin(first)
    save(first)
    whole = go_on(first, answer)
    other = go_on(load_one(context=300, parallel=1), answer)
    assert (other.text, other.end.cached_tokens) == (whole.text, whole.end.cached_tokens)


def test_a_part_of_it_is_of_use_too(load_one: Load) -> None:
    """Where another conversation begins like it."""
    first = load_one()
    begin(first)
    save(first)
    other = load_one().answer(chat(FIRST, "Never mind.", "Hello!"))
    assert 50 < other.end.cached_tokens < 70


def test_the_longer_conversation_takes_the_place_of_its_beginning(load_one: Load, archive: Archive) -> None:
    """And one that did not go on is not written again."""
    first = load_one()
    answer = begin(first)
    save(first)
    (before,) = files(archive)
    written_at = before.stat().st_ctime_ns
    second = load_one()
    go_on(second, answer)
    save(second)
    (after,) = files(archive)
    assert after.name != before.name
    whole = after.read_bytes()
    third = load_one()
    assert third.answer(chat(FIRST, answer, SECOND, cache_prompt=False)).end.cached_tokens == 0
    assert save(third).count == 0
    assert after.read_bytes() == whole
    assert written_at < after.stat().st_ctime_ns


def test_many_conversations_survive(load_one: Load, archive: Archive) -> None:
    """The one that was used last is the youngest file."""
    first = load_one()
    prompts = [f"{number} is the number. " * 10 for number in range(3)]
    for prompt in prompts:
        first.answer(generate(prompt, max_tokens=2))
    assert save(first).count == 3
    youngest = record.read_header(files(archive)[-1])
    assert list(keeper._tokens(youngest.tokens))[:20] == first.tokenize(prompts[-1], add_special=True)[:20]
    second = load_one()
    for prompt in prompts:
        assert second.answer(generate(prompt, max_tokens=2)).end.cached_tokens > 50


def seconds_later(bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """What is used from here on is used then; less than 0 is earlier."""
    monkeypatch.setattr(bench.runtime._memory, "_clock", lambda: time.time() + seconds)


def test_a_file_is_as_old_as_the_last_use(
    load_one: Load, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each conversation, parked or where it was computed: not as their worker's end."""
    first = load_one()
    for number, age_s in enumerate((900, 600, 300)):
        seconds_later(first, monkeypatch, -age_s)
        first.answer(generate(f"{number} is the number. " * 10, max_tokens=2))
    assert save(first).count == 3
    ages = [time.time() - path.stat().st_mtime for path in files(archive)]
    assert ages == pytest.approx([900, 600, 300], abs=60)


def test_what_was_of_use_again_is_young(
    load_one: Load, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it did not go on."""
    first = load_one()
    seconds_later(first, monkeypatch, -2000)
    answer = begin(first)
    first.answer(generate("1 is the number. " * 10, max_tokens=2))
    seconds_later(first, monkeypatch, 0)
    first.answer(chat(FIRST, "Never mind.", "Hello!"))
    assert save(first).count == 2
    assert go_on(load_one(), answer).end.cached_tokens > 60


def test_what_is_over_age_is_not_written(load_one: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may live for longer than that."""
    first = load_one()
    seconds_later(first, monkeypatch, -2000)
    begin(first)
    assert save(first) == Saved(0, 0)


def test_what_is_over_age_is_not_read(load_one: Load, archive: Archive) -> None:
    """It was not when the model was loaded."""
    first = load_one()
    answer = begin(first)
    save(first)
    second = load_one()
    (path,) = files(archive)
    os.utime(path, (0, 0))
    assert go_on(second, answer).end.cached_tokens == 0


@pytest.mark.parametrize("is_parked", [False, True])
def test_a_line_of_a_batch_leaves_no_file(load_one: Load, archive: Archive, is_parked: bool) -> None:
    """Who deletes the batch deletes all of it; until then lines that begin alike share what is computed."""
    first = load_one()
    begin(first, request_class=RequestClass.BATCH)
    if is_parked:
        first.answer(generate("Why?", max_tokens=2))
    assert save(first) == Saved(0, 0)
    assert files(archive) == []
    other = chat(FIRST, "Never mind.", "Hello!", request_class=RequestClass.BATCH)
    assert 50 < first.answer(other).end.cached_tokens < 70


def test_one_set_aside_leaves_no_file_either(load_one: Load, archive: Archive) -> None:
    """Its prompt is as much the batch's."""
    first = load_one()
    first.start(chat(FIRST, request_class=RequestClass.BATCH))
    first.step()
    (sequence,) = first.runtime._sequences
    first.runtime._set_aside(sequence)
    assert first.runtime.state().cached == 1
    assert save(first) == Saved(0, 0)


def test_who_shares_its_beginning_with_a_batch_leaves_only_its_own(load_one: Load, archive: Archive) -> None:
    """And who goes on with what a batch said has said it, too."""
    first = load_one()
    answer = begin(first, request_class=RequestClass.BATCH)
    other = chat(FIRST, "Never mind.", "Hello!")
    assert first.answer(other).end.cached_tokens > 50
    assert save(first).count == 1
    assert go_on(load_one(), answer).end.cached_tokens < 70
    assert go_on(first, answer).end.cached_tokens > 70
    assert save(first).count == 2


@pytest.mark.parametrize("num_more", [0, 40])
def test_a_line_of_a_batch_takes_no_conversation_from_the_archive(load_any: Load, num_more: int) -> None:
    """Though it goes on from it, in its row, with all of it or most, or says the same."""
    first = load_any()
    document = first.tokenize(FIRST * 4)
    assert len(document) > 200
    prompt = document + [9] * num_more
    first.answer(generate(prompt, max_tokens=1))
    for end in ([], [5], [5, 6]):
        line = generate([*document, *end], max_tokens=1, request_class=RequestClass.BATCH)
        assert first.answer(line).end.cached_tokens >= len(document) - 1
    assert save(first).count == 1
    assert load_any().answer(generate([*prompt, 7], max_tokens=1)).end.cached_tokens >= len(prompt)


def test_of_a_long_one_too_as_much_is_kept_as_is_of_others(load_any: Load) -> None:
    """When a line of a batch goes on from it, as when anything else comes."""
    first = load_any()
    document = [5, 6, 7, 8] * 180
    first.answer(generate(document, max_tokens=1))
    line = generate([*document, 9], max_tokens=1, request_class=RequestClass.BATCH)
    assert first.answer(line).end.cached_tokens >= len(document)
    assert save(first).count == 1
    assert load_any().answer(generate([*document, 3], max_tokens=1)).end.cached_tokens == 512


def test_lines_of_a_batch_are_no_conversations(load_one: Load, archive: Archive) -> None:
    """As many as are remembered push none out, and their words get into no file of another's."""
    first = load_one()
    answer = begin(first)
    for number in range(NUM_REMEMBERED):
        first.answer(generate(f"{number}.", max_tokens=1, request_class=RequestClass.BATCH))
    first.runtime.trim()
    (path,) = files(archive)
    assert record.read_header(path).text.endswith(answer)


def test_what_is_left_of_an_archive_is_of_no_use_to_others(load_one: Load, archive: Archive) -> None:
    """With other weights, other settings, or none of an archive at all."""
    first = load_one()
    answer = begin(first)
    save(first)
    for other in (load_one(archive=replace(archive, digest="another")), load_one(archive=None)):
        assert go_on(other, answer).end.cached_tokens == 0


def test_what_another_build_computed_is_of_no_use(
    load_one: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it has the same version: nobody can tell whether its states mean the same."""
    first = load_one()
    answer = begin(first)
    save(first)
    for path in import_llama()._base_path.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "libggml-another.so").touch()
    with monkeypatch.context() as patch:
        patch.setattr(import_llama(), "_base_path", tmp_path)
        assert go_on(load_one(), answer).end.cached_tokens == 0
    assert go_on(load_one(), answer).end.cached_tokens > 60


def test_what_was_rotated_before_it_was_quantized_is_not_read_as_it_is(
    load_one: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp takes the one for the other."""
    quantized = Loading("q8_0")
    first = load_one(loading=quantized)
    answer = begin(first)
    save(first)
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
    assert go_on(load_one(loading=quantized), answer).end.cached_tokens == 0


def test_a_request_that_keeps_to_itself_leaves_nothing(load_one: Load, archive: Archive) -> None:
    """Nor does one of an archive that is off."""
    first = load_one()
    begin(first, cache_prompt=False)
    assert save(first) == Saved(0, 0)
    second = load_one(archive=None)
    begin(second)
    assert save(second) == Saved(0, 0)
    assert files(archive) == []


def test_short_ones_are_not_worth_a_file(load_one: Load, archive: Archive) -> None:
    """They are computed as fast."""
    first = load_one()
    first.answer(chat("Hello!", max_tokens=2))
    save(first)
    assert files(archive) == []


def test_a_long_one_is_not_read_for_a_few_of_its_tokens(load_one: Load) -> None:
    """Which are computed sooner."""
    first = load_one(context=2048)
    shared = first.tokenize("one two three four five six seven eight nine ten " * 4)[:40]
    first.answer(generate(shared + [5] * 1500, max_tokens=1))
    save(first)
    second = load_one(context=2048)
    assert second.answer(generate([*shared, 6, 7, 8], max_tokens=1)).end.cached_tokens == 0


def two(load: Load) -> str:
    """Archive two conversations that begin alike; the answer in the first one."""
    bench = load()
    answer = begin(bench)
    bench.answer(chat(FIRST, "Never mind.", "Hello!"))
    assert save(bench).count == 2
    return answer


def test_a_conversation_that_goes_on_reads_no_other(load_one: Load, archive: Archive) -> None:
    """Though that begins like it: so do its own earlier turns."""
    answer = two(load_one)
    bench = load_one()
    second = go_on(bench, answer).text
    used_at = [path.stat().st_mtime_ns for path in files(archive)]
    bench.answer(chat(FIRST, answer, SECOND, second, "Thank you."))
    assert [path.stat().st_mtime_ns for path in files(archive)] == used_at


def test_what_memory_has_is_not_restored(load_one: Load) -> None:
    """Though it was asked for too long ago to be known; whoever needs more of the record still finds it."""
    answer = two(load_one)
    bench = load_one()
    second = go_on(bench, answer).text
    for token in range(keeper.MOST_PROMPTS):
        bench.runtime.prepare(generate([5, token]))
    bench.answer(chat(FIRST, answer, SECOND, second, "Thank you."))
    assert bench.runtime.state().cached == 1
    assert bench.answer(chat(FIRST, "Never mind.", "Hello!")).end.cached_tokens > 70


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte in the middle": lambda path: _flip(path, path.stat().st_size // 2),
    "a byte of the header": lambda path: _flip(path, 60),
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "open to others": lambda path: path.chmod(0o644),
    "another version": lambda path: _flip(path, 8),
    "of another model": lambda path: _relabel(path),
    "gone": lambda path: path.unlink(),
}


def _flip(path: Path, place: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)


def _relabel(path: Path) -> None:
    header = record.read_header(path)
    arrays = record.read(path, header)
    assert record.write(path, structs.replace(header, key=b"another"), arrays, lambda: False)


@pytest.mark.parametrize("when", ["before the load", "after the load"])
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_a_miss(load_one: Load, archive: Archive, what: str, when: str) -> None:
    """Never an error: the answer is the same, all of it computed."""
    first = load_one()
    answer = begin(first)
    save(first)
    whole = go_on(first, answer)
    second = load_one() if when == "after the load" else None
    DAMAGE[what](files(archive)[0])
    broken = go_on(second or load_one(), answer)
    assert broken.end.cached_tokens == 0
    assert broken.text == whole.text


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_written_anew(load_one: Load, archive: Archive, what: str) -> None:
    """It is not taken for what was saved before."""
    first = load_one()
    begin(first)
    save(first)
    DAMAGE[what](files(archive)[0])
    second = load_one()
    answer = begin(second)
    assert save(second).count == 1
    assert go_on(load_one(), answer).end.cached_tokens > 60


def forge(archive: Archive, arrays: Any, **changes: Any) -> None:
    """Change the only record; its sums are right again."""
    (path,) = files(archive)
    header = record.read_header(path)
    forms = tuple(map(record.Form.of, arrays))
    assert record.write(path, structs.replace(header, forms=forms, **changes), arrays, lambda: False)


def arrays_of(archive: Archive) -> list[Any]:
    """Of the only record."""
    (path,) = files(archive)
    return list(record.read(path, record.read_header(path)))


def test_a_state_of_another_form_is_a_miss(load: Load, archive: Archive) -> None:
    """It has the right key and sums, and never comes near native code."""
    first = load()
    answer = begin(first)
    save(first)
    arrays = arrays_of(archive)
    for wrong in (arrays[:1] * 5, [*arrays, arrays[0]], [one[..., :-1].copy() for one in arrays]):
        forge(archive, wrong)
        assert go_on(load(), answer).end.cached_tokens == 0


@pytest.mark.parametrize("field", ["tokens", "text_tokens"])
def test_tokens_that_there_are_not_are_a_miss(load_one: Load, archive: Archive, field: str) -> None:
    """Those of a text would be computed."""
    first = load_one()
    answer = begin(first)
    save(first)
    forge(archive, arrays_of(archive), **{field: b"\xff\xff\xff\x7f" * 100})
    assert go_on(load_one(), answer).end.cached_tokens == 0


@pytest.mark.parametrize("part", ["a position", "a count", "the layers", "a row"])
def test_cells_that_are_not_a_sequences_are_a_miss(load_one: Load, archive: Archive, part: str) -> None:
    """llama.cpp would believe some of them."""
    first = load_one()
    answer = begin(first)
    save(first)
    (buffer,) = arrays_of(archive)
    count = int.from_bytes(buffer[CELLS : CELLS + 4].tobytes(), "little")
    about = CELLS + 4 + 12 * count
    place = {"a count": CELLS, "a position": CELLS + 4, "the layers": about + 4, "a row": about + 12}[part]
    buffer[place : place + 8] = 255
    forge(archive, [buffer])
    assert go_on(load_one(), answer).end.cached_tokens == 0


def test_without_time_nothing_is_written(load_one: Load, archive: Archive) -> None:
    """And no part of it is left."""
    first = load_one()
    begin(first)
    assert first.runtime.save(within_s=-1.0) == Saved(0, 0)
    assert files(archive) == []


def test_a_full_disk_is_left_alone(load_one: Load, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free on it is for others."""
    first = load_one()
    begin(first)
    free = shutil.disk_usage(BUILTIN).free
    monkeypatch.setattr(keeper, "BYTES_FREE", free + 2**40)
    assert save(first) == Saved(0, 0)
    assert files(archive) == []


def test_a_folder_that_cannot_be_is_no_error(
    load_one: Load, archive: Archive, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is told, in the log."""
    Path(archive.folder).write_text("a file")
    first = load_one()
    begin(first)
    assert save(first) == Saved(0, 0)
    assert "conversations cannot be saved" in capfd.readouterr().err


def test_it_takes_no_more_than_it_may(load_one: Load, archive: Archive) -> None:
    """What was used last comes first, and makes those go that were there before."""
    first = load_one()
    begin(first)
    save(first)
    size = files(archive)[0].stat().st_size
    small = replace(archive, max_bytes=3 * size)
    second = load_one(archive=small)
    for number in range(5):
        second.answer(generate(f"{number} is the number. " * 12, max_tokens=2))
    saved = second.runtime.save(within_s=60.0)
    assert 1 <= saved.count < 5
    assert sum(path.stat().st_size for path in files(archive)) <= small.max_bytes
    third = load_one(archive=small)
    assert third.answer(generate("4 is the number. " * 12, max_tokens=2)).end.cached_tokens > 50


def test_a_conversation_longer_than_what_is_parked_is_restored_whole(load_one: Load) -> None:
    """Memory holds half of a context at rest, but the last one rests in its row."""
    prompt = generate([5, 6, 7, 8] * 200, max_tokens=2)
    first = load_one()
    first.answer(prompt)
    save(first)
    assert load_one().answer(prompt).end.cached_tokens == 799


@pytest.fixture
def load_whole(load_one: Load, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Of a model whose memory is taken to be of a kind that nobody here knows: with sliding windows, say."""
    monkeypatch.setattr(Llama, "sliding_window", 16)
    return load_one


def test_a_memory_that_nobody_can_divide_is_restored_in_whole(load_whole: Load) -> None:
    """Or not at all, where the conversation did not go on."""
    first = load_whole()
    answer = begin(first)
    save(first)
    whole = go_on(first, answer)
    assert load_whole().answer(chat(FIRST[:-40], max_tokens=1)).end.cached_tokens == 0
    broken = go_on(load_whole(), answer)
    assert (broken.text, broken.end.cached_tokens) == (whole.text, whole.end.cached_tokens)
    assert broken.end.cached_tokens > 60


def test_what_llama_cpp_refuses_is_a_miss(load_whole: Load, archive: Archive) -> None:
    """Nobody else can tell; it leaves nothing behind in the row."""
    first = load_whole()
    answer = begin(first)
    save(first)
    whole = go_on(first, answer)
    (buffer,) = arrays_of(archive)
    forge(archive, [buffer[:-2000].copy()])
    broken = go_on(load_whole(), answer)
    assert broken.end.cached_tokens == 0
    assert broken.text == whole.text
