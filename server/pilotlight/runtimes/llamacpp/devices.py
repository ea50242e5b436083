"""The GPUs that llama.cpp finds, as JSON: `python -m pilotlight.runtimes.llamacpp.devices`.

A process of its own, as looking at a GPU may wake it, take a second, and die of a driver.
"""

import sys
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from typing import Any, NamedTuple

import msgspec

from pilotlight.runtimes.llamacpp.library import import_llama
from pilotlight.runtimes.offload import Device

GPU, INTEGRATED = 1, 2
"""Of ggml_backend_dev_type; Metal calls its own GPU, though it shares memory with the CPU."""


class Ggml(NamedTuple):
    """Its libraries. Windows finds a function in the one that has it only, not in one that needs that."""

    registry: Any
    base: Any


def devices(ggml: Ggml, is_shared: bool = sys.platform == "darwin") -> tuple[Device, ...]:
    """Of ggml's registry, whatever its library computes on; with `is_shared` no GPU has memory of its own."""
    registry, base = ggml
    registry.ggml_backend_dev_count.restype = c_size_t
    registry.ggml_backend_dev_get.restype = c_void_p
    registry.ggml_backend_dev_get.argtypes = (c_size_t,)
    for name, result in {"name": c_char_p, "description": c_char_p, "type": c_int}.items():
        function = getattr(base, f"ggml_backend_dev_{name}")
        function.restype, function.argtypes = result, (c_void_p,)
    base.ggml_backend_dev_memory.argtypes = (c_void_p, c_void_p, c_void_p)
    found = (registry.ggml_backend_dev_get(number) for number in range(registry.ggml_backend_dev_count()))
    kinds = ((device, base.ggml_backend_dev_type(device)) for device in found)
    return tuple(
        _device(base, device, is_shared or kind == INTEGRATED)
        for device, kind in kinds
        if kind in (GPU, INTEGRATED)
    )


def _device(base: Any, device: int, is_integrated: bool) -> Device:
    free, total = c_size_t(), c_size_t()
    base.ggml_backend_dev_memory(device, byref(free), byref(total))
    name, description = base.ggml_backend_dev_name(device), base.ggml_backend_dev_description(device)
    return Device(
        name.decode(errors="replace"),
        description.decode(errors="replace"),
        is_integrated,
        total.value,
        free.value,
    )


def library() -> Ggml:
    """ggml's, with what it knows to compute on. Raises what an import raises."""
    llama = import_llama()
    llama.llama_supports_gpu_offload()  # which loads the backends that are files of their own
    return Ggml(*(llama.load_shared_library(name, llama._base_path) for name in ("ggml", "ggml-base")))


def main() -> None:
    sys.stdout.buffer.write(msgspec.json.encode(devices(library())))


if __name__ == "__main__":
    main()
