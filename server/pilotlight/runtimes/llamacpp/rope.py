"""Which rotary factors a model is computed with that has two sets of them (longrope: Phi, MiniCPM and more).

llama.cpp takes the long ones for a context with room for longer sequences than the model was made for at
first, the short ones for any other, and chooses anew with each context (`llama_model::get_rope_factors`). Our
memory is made anew as conversations grow, and what was computed with one set is nonsense to the other. So it
is chosen once, by what the worker allows: llama.cpp is told an original length that leaves it no choice.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from pilotlight.runtimes.limits import default_context

ALWAYS_LONG, ALWAYS_SHORT = 1, 2**31 - 1
"""Original lengths below and above every context."""

U16, U32, STRING = 2, 4, 8
"""`gguf_type` of gguf.h: reading a value as another type ends the process."""

LONG_FACTORS = "rope_factors_long.weight"


class _InitParams(ctypes.Structure):
    """`gguf_init_params`."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class Rope(Struct, frozen=True):
    """The choice for one worker."""

    key: str
    """Of the metadata with the original length."""
    original: int
    is_long: bool

    @classmethod
    def of(cls, lib: Any, path: Path, context: int) -> "Rope | None":
        """For a context of so many tokens (0: the default). None: there is one set, or no file to read."""
        with _open(lib, path) as header:
            if header is None or not (header.has_tensor(LONG_FACTORS) or _is_in_others(lib, path, header)):
                return None
            architecture = header.text("general.architecture")
            trained = header.number(f"{architecture}.context_length")
            key = f"{architecture}.rope.scaling.original_context_length"
            original = header.number(key) or trained
        return cls(key, original, (context or default_context(trained)) > original)

    @property
    def told(self) -> int:
        """The original length that llama.cpp is told instead."""
        return ALWAYS_LONG if self.is_long else ALWAYS_SHORT

    def overrides(self, lib: Any) -> Any:
        """For `llama_model_params.kv_overrides`; has to live until the model is loaded."""
        entries = (lib.llama_model_kv_override * 2)()  # the last one stays empty: the end
        entries[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_INT
        entries[0].key = self.key.encode()
        entries[0].value.val_i64 = self.told
        return entries


def _is_in_others(lib: Any, path: Path, first: "_Header") -> bool:
    """Another part of a model in several files has the long factors."""
    count = first.num_parts
    stem = path.name.removesuffix(f"-00001-of-{count:05}.gguf")
    if stem == path.name:
        return False
    for number in range(2, count + 1):
        with _open(lib, path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf")) as header:
            if header is not None and header.has_tensor(LONG_FACTORS):
                return True
    return False


class _Header:
    """Looks things up in an open `gguf_context`."""

    def __init__(self, gguf: Any, pointer: Any) -> None:
        self._gguf = gguf
        self._pointer = pointer

    def has_tensor(self, name: str) -> bool:
        return bool(self._gguf.gguf_find_tensor(self._pointer, name.encode()) >= 0)

    def number(self, key: str) -> int:
        """0 if there is none."""
        found = self._find(key, U32)
        return 0 if found is None else int(self._gguf.gguf_get_val_u32(self._pointer, found))

    @property
    def num_parts(self) -> int:
        """Files that the model is in; 0 if that is not told."""
        found = self._find("split.count", U16)
        return 0 if found is None else int(self._gguf.gguf_get_val_u16(self._pointer, found))

    def text(self, key: str) -> str:
        """ "" if there is none."""
        found = self._find(key, STRING)
        if found is None:
            return ""
        return str(self._gguf.gguf_get_val_str(self._pointer, found).decode(errors="replace"))

    def _find(self, key: str, kind: int) -> ctypes.c_int64 | None:
        number = self._gguf.gguf_find_key(self._pointer, key.encode())
        is_there = number >= 0 and self._gguf.gguf_get_kv_type(self._pointer, ctypes.c_int64(number)) == kind
        return ctypes.c_int64(number) if is_there else None


@contextmanager
def _open(lib: Any, path: Path) -> Iterator[_Header | None]:
    """The file's header; None if it has none, which its load will tell."""
    # The same library that llama.cpp is linked against; the Python module binds no function of it.
    gguf = lib.load_shared_library("ggml-base", lib._base_path)
    gguf.gguf_init_from_file.restype = ctypes.c_void_p
    gguf.gguf_get_val_str.restype = ctypes.c_char_p
    gguf.gguf_get_val_u16.restype = ctypes.c_uint16
    gguf.gguf_get_val_u32.restype = ctypes.c_uint32
    for name in ("gguf_find_key", "gguf_find_tensor"):
        getattr(gguf, name).restype = ctypes.c_int64
    pointer = gguf.gguf_init_from_file(os.fsencode(path), _InitParams(no_alloc=True, ctx=None))
    if not pointer:
        yield None
        return
    opened = ctypes.c_void_p(pointer)
    try:
        yield _Header(gguf, opened)
    finally:
        gguf.gguf_free(opened)
