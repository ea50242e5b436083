"""Graphs that choose between two sets of rotary factors by the width of a run's mask."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from speaking import BUILTIN

from pilotlight.runtimes.onnx.native import Graph
from pilotlight.runtimes.onnx.runtime import open_model
from pilotlight.runtimes.opened import Opened
from pilotlight.worker.protocol import Load

ORIGINAL = 64
"""Tokens of the widest mask that the short factors are for."""

FLOAT, INT = 1, 2
"""`TensorProto.FLOAT` and `AttributeProto.INT`."""


def field(number: int, value: int | str | bytes) -> bytes:
    """One of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def node(kind: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    """As a field of a graph."""
    named = [
        field(5, field(1, name) + field(3, value) + field(20, INT)) for name, value in attributes.items()
    ]
    return field(
        1, b"".join([*(field(1, name) for name in inputs), field(2, output), field(4, kind), *named])
    )


def write(folder: Path) -> Path:
    """The built-in model, its logits twice as large where the mask is wider than `ORIGINAL`.

    A repeated field of a protobuf message goes on behind its end.
    """
    shutil.copytree(BUILTIN / "pilot-onnx", folder)
    shape = field(2, b"".join(field(1, field(2, name)) for name in ("rows", "tokens", "words")))
    nodes = [
        node("Shape", ["attention_mask"], "mask_shape"),
        node("Constant", [], "mask_axis", value_int=1),
        node("Gather", ["mask_shape", "mask_axis"], "mask_width"),
        node("Constant", [], "original", value_int=ORIGINAL),
        node("Greater", ["mask_width", "original"], "is_long"),
        node("Cast", ["is_long"], "more", to=FLOAT),
        node("Mul", ["logits", "more"], "more_logits"),
        node("Add", ["logits", "more_logits"], "chosen_logits"),
        field(12, field(1, "chosen_logits") + field(2, field(1, field(1, FLOAT) + shape))),
    ]
    with (folder / "model.onnx").open("ab") as file:
        file.write(field(7, b"".join(nodes)))
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["decoder"]["outputs"]["logits"] = "chosen_logits"
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def opened(path: Path, context: int) -> Opened:
    """As a worker opens it."""
    found = open_model(Load(str(path), "full", context, 2, threads=1), lambda _: None)
    found.decoder.open(num_rows=2, context=context)
    return found


@pytest.mark.parametrize(("context", "variant", "factor"), [(ORIGINAL, "", 1), (2 * ORIGINAL, "long", 2)])
def test_short_and_long_conversations_get_the_same_factors(
    tmp_path: Path, context: int, variant: str, factor: int
) -> None:
    """Those for all that the worker's context has room for; and what is on disk is marked with it."""
    choosing, plain = (opened(path, context) for path in (write(tmp_path / "model"), BUILTIN / "pilot-onnx"))
    assert (choosing.variant, plain.variant) == (variant, "")
    logits = []
    for decoder in (choosing.decoder, plain.decoder):
        decoder.read(0, list(range(5, 5 + context - 1)), 0)
        decoder.read(1, [7, 8, 9], 0)
        logits.append(decoder.compute(0, [[5], [6]], [context - 1, 3]))
        logits.append(decoder.compute(1, [[6]], [3]))
    for ours, theirs in zip(logits[:2], logits[2:], strict=True):
        np.testing.assert_allclose(ours, factor * theirs, atol=1e-3)


def test_a_graph_with_one_set_gets_masks_as_wide_as_its_tokens() -> None:
    """Wider ones would only cost time."""
    graph = opened(BUILTIN / "pilot-onnx", 2048).decoder
    assert isinstance(graph, Graph)
    assert graph._narrowest == 0
