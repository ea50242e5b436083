"""llama.cpp's C API, as far as Pilotlight uses it, behind plain Python and numpy types.

The only file that imports `llama_cpp`. It knows tokens, sequences and logits; nothing of requests or text
streams. Not thread-safe, except `tokenize`, `piece` and the properties, which only read the vocabulary.
"""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotlight.runtimes.base import LoadError, MissingLibraryError
from pilotlight.runtimes.llamacpp.batch import Batch

LOG_ERROR = 4
"""`GGML_LOG_LEVEL_ERROR` of ggml.h; 3 is a warning."""

NO_ROOM = 1
"""`llama_decode`: no free cells for the batch; nothing was changed."""

ABORTED = 2
"""`llama_decode`: the abort callback ended it; part of the batch may be in memory."""

MICROBATCH = 128
"""Tokens computed at once on a CPU: no slower than 512
(measured from 16 up), with a quarter of the buffers."""

GPU_MICROBATCH = 512


class NativeError(Exception):
    """llama.cpp reported a failure that is no crash."""


def import_llama() -> Any:
    """The low-level module, without the high-level one its package pulls in (100 ms and 20 MB less)."""
    spec = importlib.util.find_spec("llama_cpp")
    if "llama_cpp" not in sys.modules and spec is not None:
        package = ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations or ())
        package.__spec__ = spec
        sys.modules["llama_cpp"] = package
    try:
        from llama_cpp import llama_cpp
    except ImportError as exc:
        raise MissingLibraryError(exc, "llama_cpp", "llama-cpp-python") from exc
    return llama_cpp


def library_version() -> str:
    """Version of llama-cpp-python, which pins its llama.cpp."""
    return version("llama-cpp-python")


@dataclass(frozen=True, slots=True)
class Mode:
    """How carefully to load. Rungs of the crash ladder, see `registry.ladder`."""

    extra_buffers: bool
    """Repacked weights and AMX: fast, and what crashes where a machine promises AMX and has none."""
    flash_attention: bool
    mmap: bool
    """With repacked weights a mapped file is a second copy;
    without, it is the only one and can be paged out."""


MODES = {
    "full": Mode(extra_buffers=True, flash_attention=True, mmap=False),
    "no-extra-buffers": Mode(extra_buffers=False, flash_attention=True, mmap=True),
    "plain": Mode(extra_buffers=False, flash_attention=False, mmap=True),
}


class Llama:
    """One loaded model, one context with unified memory for `num_slots` sequences."""

    def __init__(self, path: Path, mode: Mode, progress: Callable[[float], None]) -> None:
        """Load the weights; blocks. Raises `LoadError` with what llama.cpp said."""
        self._lib = lib = import_llama()
        progress(0.0)
        self._errors: list[str] = []
        # Callbacks must outlive their use by native code: keep references.
        self._log_callback = lib.llama_log_callback(self._on_log)
        self._progress_callback = lib.llama_progress_callback(_going_on(progress))
        lib.llama_log_set(self._log_callback, None)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.use_extra_bufts = mode.extra_buffers
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if mode.mmap else lib.LLAMA_LOAD_MODE_NONE
        params.progress_callback = self._progress_callback
        self._mode = mode
        self._model = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise LoadError(f"llama.cpp cannot load {path.name}: {self._said()}")
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.num_vocab: int = lib.llama_vocab_n_tokens(self._vocab)
        self.context_trained: int = lib.llama_model_n_ctx_train(self._model)
        self.num_parameters: int = lib.llama_model_n_params(self._model)
        self.bytes_model: int = lib.llama_model_size(self._model)
        is_end = lib.llama_vocab_is_eog
        self.end_tokens = frozenset(token for token in range(self.num_vocab) if is_end(self._vocab, token))
        self._pieces: dict[int, bytes] = {}

    def open(self, *, num_cells: int, num_slots: int, largest_batch: int, threads: int) -> None:
        """Make the context, with memory for `num_cells` tokens. Raises `LoadError`."""
        lib = self._lib
        self._params = params = lib.llama_context_default_params()
        params.n_batch = largest_batch
        params.n_ubatch = min(
            largest_batch, GPU_MICROBATCH if lib.llama_supports_gpu_offload() else MICROBATCH
        )
        params.n_seq_max = num_slots
        params.n_outputs_max = num_slots  # the least it takes; every row costs a vocabulary of floats
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.no_perf = True
        auto, off = lib.LLAMA_FLASH_ATTN_TYPE_AUTO, lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = auto if self._mode.flash_attention else off
        if not self._make_context(num_cells):
            raise LoadError(f"llama.cpp cannot make a context of {num_cells} tokens: {self._said()}")
        if not self._memory or lib.llama_model_has_encoder(self._model):
            raise LoadError("this is no text generation model: it has no decoder memory")
        self.batch = Batch(lib, largest_batch)

    def resize(self, num_cells: int) -> bool:
        """Replace the memory by an empty one of this size; False if there is none, and the old size stays."""
        old = self.num_cells
        self._lib.llama_free(self._context)
        if self._make_context(num_cells):
            return True
        if not self._make_context(old):
            raise NativeError(f"cannot make a context of {old} tokens again: {self._said()}")
        return False

    def _make_context(self, num_cells: int) -> bool:
        lib = self._lib
        self._params.n_ctx = num_cells
        self._context = lib.llama_init_from_model(self._model, self._params)
        if not self._context:
            return False
        self._memory = lib.llama_get_memory(self._context)
        self.num_cells: int = lib.llama_n_ctx(self._context)
        # A context smaller than a batch makes the batch smaller, and aborts on a larger one.
        self.largest_batch: int = lib.llama_n_batch(self._context)
        return True

    # --- vocabulary ---

    @property
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        self._lib.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    @property
    def chat_template(self) -> str | None:
        raw: bytes | None = self._lib.llama_model_chat_template(self._model, None)
        return raw.decode(errors="replace") if raw else None

    @property
    def adds_bos(self) -> bool:
        return bool(self._lib.llama_vocab_get_add_bos(self._vocab))

    def special_text(self, name: str) -> str:
        """Text of the `bos` or `eos` token, "" if the vocabulary has none."""
        token = getattr(self._lib, f"llama_vocab_{name}")(self._vocab)
        if token < 0:
            return ""
        return str(self._lib.llama_vocab_get_text(self._vocab, token).decode(errors="replace"))

    def is_control(self, token: int) -> bool:
        """It marks structure (a turn's end, a role) and stands for no text."""
        return bool(self._lib.llama_vocab_is_control(self._vocab, token))

    def warmup_token(self) -> int:
        """A token every vocabulary has."""
        bos = self._lib.llama_vocab_bos(self._vocab)
        return int(bos) if bos >= 0 else 0

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; text of special tokens becomes those tokens."""
        raw = text.encode()
        size = len(raw) + 8
        tokens = (self._lib.llama_token * size)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), tokens, size, add_special, True)
        if count < 0:
            raise NativeError(f"cannot tokenize {len(raw)} bytes of text")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for control tokens."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read_piece(token)
        return found

    def _read_piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    # --- computing ---

    def decode(self) -> bool:
        """Compute the batch; blocks without holding the GIL. False: no room, and nothing changed."""
        status = self._lib.llama_decode(self._context, self.batch.native)
        if status not in (0, NO_ROOM):
            raise NativeError(f"llama_decode failed with {status}: {self._said()}")
        return bool(status == 0)

    def decode_unless(self, is_wanted: Callable[[], bool]) -> bool:
        """As `decode`, but gives up once `is_wanted`: False, and the batch's slots are to be cut or cleared.

        It is asked before each of the graph's nodes, some tens of microseconds to milliseconds apart.
        """
        lib = self._lib
        callback = lib.ggml_abort_callback(lambda _: is_wanted())
        lib.llama_set_abort_callback(self._context, callback, None)
        try:
            status = lib.llama_decode(self._context, self.batch.native)
        finally:
            lib.llama_set_abort_callback(self._context, lib.ggml_abort_callback(), None)
        if status not in (0, NO_ROOM, ABORTED):
            raise NativeError(f"llama_decode failed with {status}: {self._said()}")
        return bool(status == 0)

    def logits(self, num_outputs: int) -> npt.NDArray[np.float32]:
        """The last batch's logits, one row per requested output in
        batch order; valid until the next decode."""
        pointer = self._lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (num_outputs, self.num_vocab))

    def warm_up(self, num_tokens: int) -> None:
        """Touch every weight once and leave the memory empty."""
        lib = self._lib
        lib.llama_set_warmup(self._context, True)
        self.batch.clear()
        self.batch.add([self.warmup_token()] * num_tokens, position=0, slot=0, wants_logits=True)
        self.decode()
        lib.llama_set_warmup(self._context, False)
        lib.llama_memory_clear(self._memory, False)

    def set_threads(self, threads: int) -> None:
        self._params.n_threads = self._params.n_threads_batch = threads
        self._lib.llama_set_n_threads(self._context, threads, threads)

    # --- memory ---

    @property
    def can_share_prefixes(self) -> bool:
        """Recurrent state cannot be cut at an arbitrary token, so such models recompute their prompts."""
        lib, model = self._lib, self._model
        return not (lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Let `target` share the first cells of `source`."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def cut(self, slot: int, num_tokens: int) -> None:
        """Keep only the first tokens of a slot."""
        self._lib.llama_memory_seq_rm(self._memory, slot, num_tokens, -1)

    def clear(self, slot: int) -> None:
        """Empty a slot; cells it shares stay with the others."""
        self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def save(self, slot: int) -> npt.NDArray[np.uint8]:
        """A copy of the slot's state, for `restore`."""
        lib = self._lib
        state = np.empty(lib.llama_state_seq_get_size(self._context, slot), np.uint8)
        lib.llama_state_seq_get_data(self._context, _bytes_pointer(state), state.size, slot)
        return state

    def restore(self, slot: int, state: npt.NDArray[np.uint8]) -> bool:
        """Fill an empty slot with a saved state; False if there are not enough free cells."""
        lib = self._lib
        return bool(lib.llama_state_seq_set_data(self._context, _bytes_pointer(state), state.size, slot))

    def num_held(self, slot: int) -> int:
        """Tokens held for the slot."""
        return int(self._lib.llama_memory_seq_pos_max(self._memory, slot)) + 1

    # --- sampling ---

    @property
    def library(self) -> Any:
        return self._lib

    def sample(self, chain: Any, output: int) -> int:
        """Draw from output row number `output` (of the batch's outputs) and tell the chain."""
        return int(self._lib.llama_sampler_sample(chain, self._context, self.batch.outputs[output]))

    # --- log ---

    def _on_log(self, level: int, text: bytes, _: Any) -> None:
        if level == LOG_ERROR:
            line = text.decode(errors="replace").strip()
            self._errors.append(line)
            del self._errors[:-8]
            print(line, file=sys.stderr, flush=True)

    def _said(self) -> str:
        """The errors logged last, the first of which tells most."""
        said = "; ".join(line for line in self._errors if line) or "no reason given"
        self._errors.clear()
        return said[:500]


def _going_on(progress: Callable[[float], None]) -> Callable[[float, Any], bool]:
    """As llama.cpp calls it: with user data, and the answer says to go on loading."""

    def callback(done: float, _: Any) -> bool:
        progress(done)
        return True

    return callback


def _bytes_pointer(array: npt.NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
