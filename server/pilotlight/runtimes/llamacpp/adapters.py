"""LoRA adapters of one llama.cpp model: small matrices that are computed beside its own."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pilotlight.core import Lora
from pilotlight.runtimes.base import LoadError


class Adapters:
    """They belong to the model, and have to be put on every context that is made of it."""

    def __init__(self, lib: Any, model: Any, wanted: Sequence[Lora], said: Callable[[], str]) -> None:
        """Read the files; before there is a context, as that has to know their size. Raises `LoadError`."""
        self._lib = lib
        kind = lib.llama_adapter_lora_p_ctypes
        self._pointers = (kind * len(wanted))(*(self._read(model, Path(one.path), said) for one in wanted))
        self._scales = (ctypes.c_float * len(wanted))(*(one.scale for one in wanted))

    def put_on(self, context: Any) -> None:
        """What it computes from now on is with them. Raises `LoadError`."""
        num = len(self._pointers)
        if num and self._lib.llama_set_adapters_lora(context, self._pointers, num, self._scales):
            raise LoadError("llama.cpp does not take the LoRA adapters")

    def _read(self, model: Any, path: Path, said: Callable[[], str]) -> Any:
        if not path.is_file():
            raise LoadError(f"the LoRA adapter {path} does not exist")
        adapter = self._lib.llama_adapter_lora_init(model, bytes(path))
        if not adapter:
            raise LoadError(f"llama.cpp cannot load the LoRA adapter {path.name}: {said()}")
        if self._lib.llama_adapter_get_alora_n_invocation_tokens(adapter):
            raise LoadError(
                f"the LoRA adapter {path.name} is to work only after certain tokens, which is not supported"
            )
        return adapter
