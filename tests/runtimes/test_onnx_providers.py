"""Which execution provider computes an ONNX model."""

from collections.abc import Sequence

import pytest
from speaking import BUILTIN

from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.onnx.export import Export
from pilotlight.runtimes.onnx.native import Floats, Graph, import_onnxruntime
from pilotlight.runtimes.onnx.providers import PROVIDERS, available, choose

EXPORT = Export.read(BUILTIN / "pilot-onnx")

A_GPU_BUILD = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""What the library offers, under its names."""


def test_auto_is_the_cpu_also_beside_a_gpu() -> None:
    """Which would copy all keys and values at every step."""
    assert choose("auto", A_GPU_BUILD) == "cpu"


def test_a_provider_that_is_there_can_be_chosen() -> None:
    """By our name for it."""
    assert choose("cuda", A_GPU_BUILD) == "cuda"
    assert available(A_GPU_BUILD) == ("cpu", "cuda")


def test_one_that_is_not_there_is_told_with_those_that_are() -> None:
    """It is the model's error."""
    with pytest.raises(LoadError, match=r"no execution provider qnn here; there is: cpu, cuda$"):
        choose("qnn", A_GPU_BUILD)


def test_every_declared_provider_has_a_name_in_the_library() -> None:
    """And no other can be configured."""
    assert CAPABILITIES["onnx"].providers == tuple(PROVIDERS)


def test_the_session_runs_on_what_was_chosen() -> None:
    """The library may fall back by itself."""
    graph = Graph(import_onnxruntime(), EXPORT, threads=1)
    assert graph.provider == "cpu"
    assert graph._session.get_providers() == [PROVIDERS["cpu"]]


class Forgetful(Graph):
    """Computes into a copy of its memory, as it were: nothing stays."""

    def compute(self, first: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Floats:
        logits = super().compute(first, tokens, starts)
        for state in self._states:
            state[:] = 0
        return logits


@pytest.mark.parametrize(("kind", "keeps"), [(Graph, True), (Forgetful, False)])
def test_a_graph_that_forgets_its_memory_is_found_out(kind: type[Graph], keeps: bool) -> None:
    """Before anybody gets nonsense."""
    graph = kind(import_onnxruntime(), EXPORT, threads=1)
    graph.open(num_rows=1, context=64)
    assert graph.is_written_in_place() is keeps
