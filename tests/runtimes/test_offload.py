"""GPUs: which layers they get, and which of them are used. Recorded answers stand in for ggml's devices."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.registry.gpu import gpus
from pilotlight.runtimes.llamacpp.devices import Ggml, _device, devices, library
from pilotlight.runtimes.llamacpp.library import import_llama
from pilotlight.runtimes.offload import ALL, Device, num_staying, used

DISCRETE = Device("CUDA0", "NVIDIA GeForce RTX 4050 Laptop GPU", False, 6 * 2**30, 5 * 2**30)
INTEGRATED = Device("Vulkan0", "Intel(R) Iris(R) Xe Graphics", True, 16 * 2**30, 9 * 2**30)


def ggml(listed: list[tuple[int, Device]]) -> Ggml:
    """Of each device the type and what it says; a function is where it is on Windows, and nowhere else."""

    def memory(number: int, free: Any, total: Any) -> None:
        free._obj.value, total._obj.value = listed[number][1].bytes_free, listed[number][1].bytes_total

    registry = SimpleNamespace(
        ggml_backend_dev_count=lambda: len(listed),
        ggml_backend_dev_get=lambda number: number,
    )
    base = SimpleNamespace(
        ggml_backend_dev_type=lambda number: listed[number][0],
        ggml_backend_dev_name=lambda number: listed[number][1].name.encode(),
        ggml_backend_dev_description=lambda number: listed[number][1].description.encode(),
        ggml_backend_dev_memory=memory,
    )
    return Ggml(registry, base)


LAPTOP = [
    (2, INTEGRATED),
    (1, DISCRETE),
    (3, Device("BLAS", "", False, 0, 0)),
    (0, Device("CPU", "", False, 0, 0)),
]


def test_gpus_are_told_from_what_else_computes() -> None:
    """And those with memory of their own from those without, which counts only if there are no others."""
    found = devices(ggml(LAPTOP), is_shared=False)
    assert found == (INTEGRATED, DISCRETE)
    assert used(found) == (DISCRETE,)
    assert used((INTEGRATED,)) == (INTEGRATED,)
    assert used(()) == ()


def test_on_apple_s_machines_no_gpu_has_memory_of_its_own() -> None:
    """Though Metal does not call it integrated."""
    (found,) = devices(ggml([(1, Device("MTL0", "Apple M3", False, 18 * 2**30, 12 * 2**30))]), is_shared=True)
    assert found.is_integrated


def test_the_installed_build_lists_what_it_can_offload_to() -> None:
    """llama.cpp itself, asked in both ways; the daemon asks a process of its own."""
    can_offload = bool(import_llama().llama_supports_gpu_offload())
    assert bool(devices(library())) == can_offload
    assert bool(gpus()) == can_offload
    assert library().registry.ggml_backend_dev_count() > 0, "the CPU is one, too"


def test_the_library_that_has_a_function_says_what_one_says_that_leads_to_it() -> None:
    """Here both do; the wheel has a copy of each for either."""
    registry, base = library()
    said = []
    for one in (registry, base):
        devices(Ggml(registry, one))
        cpu = _device(one, registry.ggml_backend_dev_get(0), False)
        said.append((cpu.name, cpu.description, cpu.bytes_total))
    assert said[0] == said[1]


@given(st.integers(1, 200), st.integers(0, 400))
def test_layers_go_to_a_gpu_from_the_last_one_on(num_layers: int, gpu_layers: int) -> None:
    """As llama.cpp says it, layer by layer: the output is the one behind the last."""
    first = max(num_layers + 1 - gpu_layers, 0)
    on_gpu = [layer >= first for layer in range(num_layers)]
    assert num_staying(num_layers, gpu_layers) == on_gpu.count(False)


@pytest.mark.parametrize(
    ("gpu_layers", "staying"), [(ALL, 0), (0, 28), (1, 28), (2, 27), (28, 1), (29, 0), (99, 0)]
)
def test_the_output_goes_first(gpu_layers: int, staying: int) -> None:
    """So one layer on a GPU is none of the 28."""
    assert num_staying(28, gpu_layers) == staying
