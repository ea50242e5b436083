"""Headers of GGUF files: what is read of good ones, and that bad ones are refused."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_header import PUBLISHED, Words, header, tensor, text, value
from pilotlight.registry.cost import Layout, estimate
from pilotlight.registry.gguf import KINDS, Header, Skipped, read_header, read_model
from pilotlight.registry.reader import HeaderError, TruncatedError
from pilotlight.registry.shape import Shape

MANY = 2**62

CORPUS = [path.read_bytes() for path in sorted((Path(__file__).parent / "headers").glob("*.gguf"))]
"""Small files that once were of use to a fuzzer."""

GOOD = header(
    {
        "general.architecture": "llama",
        "general.name": "x" * 300,
        "llama.block_count": 2,
        "llama.scale": 0.5,
        "llama.flag": True,
        "llama.per_layer": [1, 2],
        "tokenizer.ggml.tokens": Words(40),
    },
    [("token_embd.weight", (64, 40), "Q8_0"), ("blk.0.attn_q.weight", (64, 64), "F32")],
)


def read(raw: bytes) -> Header:
    return read_header(io.BytesIO(raw))


def test_it_reads_what_the_gguf_package_reads(tiny_gguf: Path) -> None:
    """Of a real file: every tensor with kind, shape and place, and every number."""
    ours, theirs = read_model(tiny_gguf), gguf.GGUFReader(tiny_gguf)
    assert [
        (one.name, one.kind, one.shape, one.num_bytes, ours.data_start + one.offset) for one in ours.tensors
    ] == [
        (one.name, one.tensor_type.name, tuple(one.shape), one.n_bytes, one.data_offset)
        for one in theirs.tensors
    ]
    for key, field in theirs.fields.items():
        if isinstance(field.contents(), int | float | str) and not key.startswith("GGUF."):
            assert ours.metadata[key] == field.contents()
    assert ours.count("tokenizer.ggml.tokens") == len(theirs.fields["tokenizer.ggml.tokens"].data)


def test_every_kind_of_tensor_has_the_size_that_ggml_says() -> None:
    """As far as the gguf package knows them."""
    known = {kind.value: (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert known == {number: KINDS[number] for number in known}


def test_long_arrays_are_counted_and_not_kept() -> None:
    """Texts, and numbers beyond one for each layer; short ones are there."""
    found = read(header({"a": Words(100_000), "b": [7] * 5000, "c": [1, 2, 3]})).metadata
    assert found == {"a": Skipped(100_000, 1_400_000), "b": Skipped(5000, 20_000), "c": (1, 2, 3)}


def test_a_beginning_says_that_more_is_needed() -> None:
    """Wherever it was cut: so a header can be fetched piece by piece."""
    assert read(GOOD).number("llama.block_count") == 2
    for end in range(4, len(GOOD)):
        with pytest.raises(TruncatedError):
            read(GOOD[:end])


def test_arrays_longer_than_a_block_are_walked_over() -> None:
    """Texts that end anywhere, also beyond the next block."""
    random = Random(3)
    words = [bytes(random.choice((0, 7, 300_000, 3))) for _ in range(30)]
    array = struct.pack("<IIQ", 9, 8, len(words)) + b"".join(struct.pack("<Q", len(w)) + w for w in words)
    raw = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + text("words") + array + text("last") + value(5)
    found = read(raw)
    assert found.count("words") == 30
    assert found.number("last") == 5


def one_tensor(*entries: bytes) -> bytes:
    return header({}, num_tensors=len(entries)) + b"".join(entries)


HOSTILE = {
    "empty": (b"", "0 bytes"),
    "no GGUF": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "version 1": (GOOD[:4] + struct.pack("<I", 1) + GOOD[8:], "version 1"),
    "big-endian": (GOOD[:4] + struct.pack(">I", 3) + GOOD[8:], "big-endian"),
    "a number of tensors": (header({}, num_tensors=MANY), f"{MANY} tensors"),
    "a number of keys": (header({}, num_keys=MANY), f"{MANY} keys"),
    "a long key": (header({}, num_keys=1) + struct.pack("<Q", MANY), f"{MANY} bytes"),
    "a key twice": (header({"a": 1}, num_keys=2) + text("a") + value(2), "'a' comes twice"),
    "a key that is no text": (header({}, num_keys=1) + struct.pack("<Q", 2) + b"\xff\xfe", "no text"),
    "a long text": (header({}, num_keys=1) + text("a") + struct.pack("<IQ", 8, MANY), "more than"),
    "an unknown type": (header({}, num_keys=1) + text("a") + struct.pack("<I", 99), "type 99"),
    "a long array": (
        header({}, num_keys=1) + text("a") + struct.pack("<IIQ", 9, 4, MANY),
        f"{MANY} elements",
    ),
    "a long array of texts": (
        header({}, num_keys=1) + text("a") + struct.pack("<IIQQ", 9, 8, 2, MANY),
        "more than",
    ),
    "giant metadata": (
        header({f"k{one}": "x" * 2**17 for one in range(9)}),
        "letters and numbers of metadata",
    ),
    "giant arrays": (header({f"k{one}": [1] * 4096 for one in range(257)}), "letters and numbers"),
    "arrays in arrays": (
        header({}, num_keys=1) + text("a") + struct.pack("<IIQ", 9, 9, 1) * 1000,
        "array of arrays",
    ),
    "an odd alignment": (header({"general.alignment": 24}), "no power of two"),
    "no dimensions": (one_tensor(tensor("a", (), 0, 0)), "0 dimensions"),
    "dimensions": (one_tensor(text("a") + struct.pack("<I", 2**31)), "dimensions"),
    "a size that overflows": (one_tensor(tensor("a", (2**40, 2**40), 0, 0)), "weights"),
    "a size of nothing": (one_tensor(tensor("a", (0, 5), 0, 0)), "0 weights"),
    "an offset that overflows": (one_tensor(tensor("a", (32,), 0, 2**64 - 32)), "weights at"),
    "a sum that overflows": (
        one_tensor(*(tensor(f"t{one}", (2**59,), 0, one << 61) for one in range(2))),
        "more bytes than any file",
    ),
    "half a block": (one_tensor(tensor("a", (33,), 8, 0)), "blocks of 32"),
    "an unknown kind": (one_tensor(tensor("a", (32,), 4, 0)), "type 4"),
    "not aligned": (one_tensor(tensor("a", (32,), 0, 8)), "not aligned"),
    "tensors that overlap": (
        one_tensor(tensor("a", (64,), 0, 0), tensor("b", (64,), 0, 128)),
        "'a' and 'b' overlap",
    ),
    "a tensor twice": (one_tensor(tensor("a", (8,), 0, 0), tensor("a", (8,), 0, 32)), "the same name"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_refused(what: str) -> None:
    """With what is wrong, and before anything is taken for it."""
    raw, complaint = HOSTILE[what]
    with pytest.raises(HeaderError, match=complaint):
        read(raw)


def test_weights_beyond_the_end_of_the_file_are_refused(tmp_path: Path) -> None:
    """A file cut short, or one that points elsewhere."""
    path = tmp_path / "short.gguf"
    path.write_bytes(GOOD + bytes(100))
    with pytest.raises(HeaderError, match=r"short.gguf: the file has \d+ bytes, and its tensors end at"):
        read_model(path)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe that nobody writes to would never answer; a folder is the system's to tell."""
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(HeaderError, match=r"pipe.gguf: it is a pipe, a socket or a device, and no file"):
        read_model(tmp_path / "pipe.gguf")
    with pytest.raises(IsADirectoryError):
        read_model(tmp_path)


def whole(raw: bytes) -> bytes:
    return raw + bytes(read(raw).bytes_file - len(raw))


def shard(number: int, count: int) -> bytes:
    facts = {"general.architecture": "llama", "split.count": count, "split.no": number}
    return whole(header(facts, [(f"blk.{number}.attn_q.weight", (64, 64), "Q8_0")]))


def test_the_shards_of_a_model_are_one(tmp_path: Path) -> None:
    """Named by the first."""
    for number in range(3):
        (tmp_path / f"m-{number + 1:05}-of-00003.gguf").write_bytes(shard(number, 3))
    found = read_model(tmp_path / "m-00001-of-00003.gguf")
    assert [one.name for one in found.tensors] == [f"blk.{number}.attn_q.weight" for number in range(3)]
    assert found.bytes_weights == 3 * 64 * 68


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """And one that is not the first."""
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(shard(0, 2))
    with pytest.raises(HeaderError, match=r"m-00002-of-00002.gguf is not there"):
        read_model(tmp_path / "m-00001-of-00002.gguf")
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(shard(1, 2))
    with pytest.raises(HeaderError, match=r"the first is named NAME-00001-of-00002"):
        read_model(tmp_path / "m-00002-of-00002.gguf")


def judge(raw: bytes) -> None:
    """A cost or a refusal, and never anything else."""
    try:
        cost = estimate(Shape.of(read(raw)), Layout())
    except HeaderError as refusal:
        assert str(refusal)
    else:
        assert 0 < cost.at_load.total < 2**80


def test_what_a_fuzzer_came_upon_is_read_or_refused() -> None:
    """The inputs by which 1.3 million runs got furthest."""
    assert CORPUS
    for raw in CORPUS:
        judge(raw)


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_a_damaged_header_is_read_or_refused(seed: int, num_changes: int) -> None:
    """Whichever bytes are others, missing, or come twice."""
    random = Random(seed)
    raw = bytearray(random.choice([*CORPUS, GOOD]))
    for _ in range(num_changes):
        change: Callable[[bytearray, Random], None] = random.choice((_overwrite, _cut, _repeat))
        change(raw, random)
    judge(bytes(raw))


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    """Behind the right magic and version, too."""
    judge(noise)
    judge(GOOD[:8] + noise)


def _overwrite(raw: bytearray, random: Random) -> None:
    """With numbers that matter at the edges of types."""
    at = random.randrange(len(raw) + 1)
    edge = random.choice(
        (0, 1, 2**7, 2**16, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, random.getrandbits(64))
    )
    raw[at : at + 8] = struct.pack("<Q", edge)[: random.choice((1, 2, 4, 8))]


def _cut(raw: bytearray, random: Random) -> None:
    at = random.randrange(len(raw) + 1)
    del raw[at : at + random.choice((1, 8, 100))]


def _repeat(raw: bytearray, random: Random) -> None:
    at = random.randrange(len(raw) + 1)
    raw[at:at] = raw[at : at + random.choice((1, 8, 60))]


@pytest.mark.parametrize("name", PUBLISHED)
def test_headers_of_real_models_are_read(name: str) -> None:
    """Their tokenizers are long; their sizes are known."""
    found = read(PUBLISHED[name].header())
    assert found.count("tokenizer.ggml.tokens") == PUBLISHED[name].vocab
    assert found.bytes_weights > 2**28
