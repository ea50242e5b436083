"""What each model costs on this machine: the arithmetic's estimate, corrected by what was measured.

Owns `costs.json` in the state directory. A measurement holds for one file as it was, with the same settings,
mode, library build and machine; for anything else there is an estimate again.
"""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct, to_builtins
from msgspec.structs import replace

from pilotlight.core import Cost, Loading, Model, Size
from pilotlight.registry import ladder
from pilotlight.registry.formats import MARKS
from pilotlight.registry.gpu import computing
from pilotlight.registry.ladder import Ladder
from pilotlight.registry.records import Records
from pilotlight.runtimes.kv_types import KvTypes
from pilotlight.runtimes.limits import DEFAULT_CONTEXT, DEFAULT_PARALLEL, default_context
from pilotlight.runtimes.offload import Device

# The arithmetic is imported with the first model that is loaded: a daemon that nobody asks starts sooner.
if TYPE_CHECKING:
    from pilotlight.registry.cost import Estimate, Layout, Parts
    from pilotlight.registry.folders import FolderShape
    from pilotlight.registry.shape import Shape


Bytes = Annotated[int, Meta(ge=0, le=2**60)]
"""That a process may have; it comes from a file."""


class Measured(Struct, frozen=True):
    """A worker's bytes when it had loaded; `at` is Unix seconds, `model` for whoever reads the file."""

    model: str
    private: Bytes
    shared: Bytes
    at: float


class Costs:
    """Estimates and measurements. `estimate` and `record` block on files: call them from a thread."""

    def __init__(
        self,
        state_dir: Path,
        modes: Ladder,
        clock: Callable[[], float] = time.time,
        devices: Callable[[Model], tuple[Device, ...]] = computing,
    ) -> None:
        """`devices` are the GPUs that compute a model."""
        self._records = Records(state_dir / "costs.json", Measured)
        self._modes = modes
        self._clock = clock
        self._devices = devices
        self._lock = threading.Lock()
        self._shapes: dict[Path, tuple[str, Shape | FolderShape]] = {}
        self._known: dict[str, Cost] = {}

    def estimate(self, model: Model) -> Cost:
        """What the model's worker will hold, in the mode that would be tried first.

        The first time for a file this reads its header (0.1 s with a large vocabulary). Raises
        `HeaderError` for a file that nobody should load, and `OSError` where there is nothing to read.
        """
        mode = self._modes.modes(model.runtime)[0]
        context, refusal = self._context(model, mode)
        model = replace(model, context=context)
        found = self._estimate(model, mode)
        with self._lock:
            cost = _corrected(found, self._records.read().get(_key(model, mode)))
            cost = replace(cost, context=context, refusal=refusal)
            self._known[model.name] = cost
        return cost

    def loading(self, model: Model, mode: str) -> Loading:
        """The model's, with what it leaves open decided for this mode. Raises like `estimate`."""
        from pilotlight.registry.shape import Shape

        shape = self._shape(model)
        if not isinstance(shape, Shape):
            return model.loading
        return replace(model.loading, mmap=layout(model, shape, mode, self._devices(model)).mmap)

    def known(self, model: Model) -> Cost | None:
        """What `estimate` or `record` last led to; reads nothing."""
        return self._known.get(model.name)

    def forget(self, model: str) -> None:
        """What `known` would say of it. What was measured is kept."""
        self._known.pop(model, None)

    def record(self, model: Model, mode: str, size: Size) -> None:
        """The model's worker has loaded in that mode and holds so much. Raises like `estimate`.

        Where it cannot be written, it is forgotten.
        """
        found = self._estimate(model, mode)
        key, new = _key(model, mode), Measured(model.name, size.private, size.shared, self._clock())
        with self._lock:
            self._records.add(key, new)
            self._known[model.name] = replace(_corrected(found, new), context=model.context)

    def _context(self, model: Model, mode: str) -> tuple[int, str | None]:
        """The one that the model's own cap allows, and why it does not if so."""
        from pilotlight.registry.caps import context_within

        shape = self._shape(model)
        default = default_context(shape.context_trained if shape else 0)
        return context_within(model, default, lambda one: self._estimate(replace(model, context=one), mode))

    def _estimate(self, model: Model, mode: str) -> "Estimate":
        from pilotlight.registry.cost import LIBRARY_BYTES, PROCESS_BYTES, Estimate, Parts, estimate
        from pilotlight.registry.folders import FolderShape, bits_of, estimate_folder
        from pilotlight.registry.shape import Shape

        shape = self._shape(model)
        if isinstance(shape, Shape):
            return estimate(shape, layout(model, shape, mode, self._devices(model)))
        if isinstance(shape, FolderShape):
            parallel, bits = model.parallel or DEFAULT_PARALLEL, bits_of(model.loading.kv_cache_type)
            context = model.context or DEFAULT_CONTEXT
            return estimate_folder(shape, context=context, parallel=parallel, kv_bits=bits)
        plain = Parts(0, 0, 0, 0, PROCESS_BYTES, LIBRARY_BYTES)
        return Estimate(plain, plain)

    def _shape(self, model: Model) -> "Shape | FolderShape | None":
        """Of the file as it is now; read once. None for a runtime that loads no weights."""
        from pilotlight.registry.folders import FolderShape
        from pilotlight.registry.gguf import read_model
        from pilotlight.registry.shape import Shape

        if model.runtime == "echo":
            return None
        identity = _identity(model.path)
        with self._lock:
            known, shape = self._shapes.get(model.path, ("", None))
        if shape is None or known != identity:
            is_folder = model.runtime in MARKS
            shape = (
                FolderShape.of(model.path, model.runtime) if is_folder else Shape.of(read_model(model.path))
            )
            with self._lock:
                self._shapes[model.path] = identity, shape
        return shape


def layout(model: Model, shape: "Shape", mode: str, devices: tuple[Device, ...] = ()) -> "Layout":
    """How a llama.cpp worker lays the model out in that mode of the crash ladder, beside these GPUs.

    Reads the headers of its adapters. Raises `HeaderError` and `OSError`.
    """
    from pilotlight.registry import adapters
    from pilotlight.registry.cost import GPU_MICROBATCH, MICROBATCH, Layout, repacked_kinds

    is_full = mode == "full"
    # Beside a GPU weights lie where it can fetch them, in their own order.
    repacked = repacked_kinds(ladder.features()) if is_full and not devices else frozenset()
    kv = KvTypes.parse(model.loading.kv_cache_type) or KvTypes()
    return Layout(
        context=model.context or default_context(shape.context_trained),
        parallel=model.parallel or DEFAULT_PARALLEL,
        key_kind=kv.keys.upper(),
        value_kind=kv.values.upper(),
        # As `runtimes.llamacpp.native` does it.
        flash_attention=mode != "plain"
        and (bool(devices) or kv.has_quantized_values or not shape.has_plain_memory),
        microbatch=GPU_MICROBATCH if devices else MICROBATCH,
        mmap=_is_mapped(model, shape, repacked) if is_full else model.loading.mmap is not False,
        repacked=repacked,
        gpu_layers=0 if all(device.is_integrated for device in devices) else model.loading.gpu_layers,
        bytes_adapters=sum(adapters.bytes_of(lora, shape.architecture) for lora in model.loading.lora),
    )


def _is_mapped(model: Model, shape: "Shape", repacked: frozenset[str]) -> bool:
    """In the full mode, where only Linux lets go of what was repacked."""
    if model.loading.mmap is not None:
        return model.loading.mmap
    return sys.platform == "linux" and shape.is_better_mapped(repacked)


def _corrected(found: "Estimate", measured: Measured | None) -> Cost:
    """What was measured holds for the load; what comes later comes on top of it."""
    estimated, most = _size(found.at_load), _size(found.at_most)
    device = max(found.at_load.device, found.at_most.device)
    if measured is None:
        return Cost(estimated, most, estimated, is_measured=False, device=device)
    at_load = Size(measured.private, measured.shared)
    private = at_load.private + max(0, most.private - estimated.private)
    # What the system had dropped of a mapped file when it was measured comes back with use.
    mapped = min(found.at_most.mapped, most.total - private)
    shared = max(at_load.shared + max(0, most.shared - estimated.shared), mapped)
    return Cost(at_load, Size(private, shared), estimated, is_measured=True, device=device)


def _size(parts: "Parts") -> Size:
    return Size(parts.private, parts.shared)


def _key(model: Model, mode: str) -> str:
    """All that a measurement depends on."""
    facts = (
        _identity(model.path),
        model.runtime,
        ladder.build(model.runtime),
        ladder.machine(),
        mode,
        model.context,
        model.parallel,
        model.provider,
        to_builtins(model.loading),
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _identity(path: Path) -> str:
    """Changes when the file does, or any in the folder that is not hidden. Raises `OSError`."""
    path = Path(os.path.realpath(path))  # `resolve` would raise something else for links in a circle
    inside = (file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else (path,)
    files = sorted(inside)
    found = [(file.name, file.stat()) for file in files]
    return json.dumps([str(path), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]])
