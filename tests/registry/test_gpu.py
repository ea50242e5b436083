"""Which GPUs a build of llama.cpp knows."""

from pathlib import Path

import pytest

from pilotlight.registry.gpu import backends
from pilotlight.runtimes.llamacpp.library import import_llama


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["libggml.so", "libggml-base.so.0", "libggml-base.so", "libggml-cpu-haswell.so", "libllama.so"], ()),
        (["libggml-cuda.so", "libggml-blas.so", "libggml-rpc.so"], ("cuda",)),
        (["libggml-metal.dylib", "libggml-blas.dylib"], ("metal",)),
        (["ggml-vulkan.dll", "ggml-cuda.dll", "ggml.dll"], ("cuda", "vulkan")),
    ],
)
def test_a_gpu_has_a_library_of_its_own(tmp_path: Path, names: list[str], found: tuple[str, ...]) -> None:
    """On every system, named by the part of ggml."""
    for name in names:
        (tmp_path / name).touch()
    assert backends(tmp_path) == found


def test_a_build_without_libraries_knows_none(tmp_path: Path) -> None:
    """It is put together otherwise; nothing fails for it."""
    assert backends(tmp_path / "none") == ()


def test_the_installed_build_says_the_same() -> None:
    """llama.cpp itself, asked."""
    assert bool(backends()) == bool(import_llama().llama_supports_gpu_offload())
