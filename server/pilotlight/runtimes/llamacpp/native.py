"""llama.cpp's C API, as far as Pilotlight uses it, behind plain Python and numpy types.

It knows tokens, sequences and logits; nothing of requests or text streams. Not thread-safe, except the
vocabulary, which is only read.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.kv_types import BLOCKS, KvTypes
from pilotlight.runtimes.llamacpp.adapters import Adapters
from pilotlight.runtimes.llamacpp.batch import Batch
from pilotlight.runtimes.llamacpp.layout import Layout
from pilotlight.runtimes.llamacpp.library import USER_SAYS, import_llama
from pilotlight.runtimes.llamacpp.rope import Rope
from pilotlight.runtimes.llamacpp.state import SequenceState
from pilotlight.runtimes.llamacpp.vocabulary import LlamaVocabulary
from pilotlight.runtimes.llamacpp.waiting import Waiting
from pilotlight.runtimes.offload import refusal
from pilotlight.runtimes.rows import DecodeError, Floats
from pilotlight.worker import heap
from pilotlight.worker.protocol import Load

LOG_ERROR = 4
"""`GGML_LOG_LEVEL_ERROR` of ggml.h; 3 is a warning."""

ABORTED = 2
"""`llama_decode`: the abort callback ended it; part of the batch may be in memory."""

MICROBATCH = 128
"""Tokens computed at once on a CPU: no slower than 512 (measured from 16 up), with far smaller buffers."""

GPU_MICROBATCH = 512

TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
"""`ggml_type` of ggml.h, of those that keys and values may have."""

TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""`llama_token_data`: what samplers work on."""


class Mode(Struct, frozen=True):
    """How carefully to load. Rungs of the crash ladder, see `registry.ladder`."""

    extra_buffers: bool
    """Repacked weights and AMX: fast, and what crashes where a machine promises AMX and has none."""
    flash_attention: bool
    mmap: bool
    """Unless `Loading.mmap` says otherwise. With repacked weights a mapped file is let go of once they are;
    without, it is the only copy and can be paged out."""


MODES = {
    "full": Mode(extra_buffers=True, flash_attention=True, mmap=False),
    "no-extra-buffers": Mode(extra_buffers=False, flash_attention=True, mmap=True),
    "plain": Mode(extra_buffers=False, flash_attention=False, mmap=True),
}


_log_callbacks: list[Any] = []
"""llama.cpp goes on calling the last one when the load that it was made for has failed."""


class Llama:
    """One loaded model, one context with memory for several sequences, each in a row of its own."""

    def __init__(self, path: Path, mode: Mode, load: Load, progress: Callable[[float], None]) -> None:
        """Load the weights, with `mode` as the last word on mapping the file; blocks.

        Raises `LoadError` with what llama.cpp said.
        """
        self._lib = lib = import_llama(path.stat().st_size)
        progress(0.0)
        has_gpu, gpu_layers = bool(lib.llama_supports_gpu_offload()), load.loading.gpu_layers
        if gpu_layers > 0 and not has_gpu:
            raise LoadError(refusal(gpu_layers))
        self._has_gpu = has_gpu and gpu_layers != 0
        self._errors: list[str] = []
        self._is_quiet = False
        """What is broken off is no error, though llama.cpp says so."""
        # Callbacks must outlive their use by native code: keep references.
        self._log_callback = lib.llama_log_callback(self._on_log)
        self._progress_callback = lib.llama_progress_callback(_going_on(progress))
        lib.llama_log_set(self._log_callback, None)
        _log_callbacks.append(self._log_callback)
        lib.llama_backend_init()
        self._waiting = None if USER_SAYS else Waiting.start()
        params = lib.llama_model_default_params()
        params.use_extra_bufts = mode.extra_buffers
        params.n_gpu_layers = gpu_layers
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if mode.mmap else lib.LLAMA_LOAD_MODE_NONE
        params.progress_callback = self._progress_callback
        self._rope = Rope.of(lib, path, load.context)
        if self._rope is not None:
            params.kv_overrides = self._rope.overrides(lib)
        self._model = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise LoadError(f"llama.cpp cannot load {path.name}: {self.said()}")
        if mode.mmap and mode.extra_buffers:
            # Of what was repacked there is a copy now. Done before anything is computed, so that what is
            # used in place is there when the worker is measured.
            heap.let_go_of_files()
        self._adapters = Adapters(lib, self._model, load.loading.lora, self.said)
        self.vocabulary = LlamaVocabulary(lib, self._model)
        self.context_trained: int = lib.llama_model_n_ctx_train(self._model)
        self.num_parameters: int = lib.llama_model_n_params(self._model)
        self.bytes_model: int = lib.llama_model_size(self._model)
        self._ids = np.arange(self.vocabulary.num_vocab, dtype=np.int32)
        self._candidates = np.zeros(self.vocabulary.num_vocab, TOKEN_DATA)
        self._context: Any = None
        self._views: dict[tuple[int, int], Floats] = {}
        """The context's logits, by address and number of rows."""
        self.has_plain_memory = not (self.is_recurrent or self.sliding_window)
        """Keys and values of all tokens and nothing else, so far as known: it can be divided among rows."""
        self.can_flash = mode.flash_attention
        """Flash attention may be used, so far as known."""

    def open(self, layout: Layout, largest_batch: int, threads: int, kv: KvTypes) -> bool:
        """Make the context; False if there is no memory. Raises `LoadError`."""
        lib = self._lib
        self._check_types(kv)
        self._params = params = lib.llama_context_default_params()
        params.n_batch = largest_batch
        params.n_ubatch = GPU_MICROBATCH if self._has_gpu else MICROBATCH
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        params.type_k, params.type_v = TYPES[kv.keys], TYPES[kv.values]
        if self._rope is not None:
            params.yarn_orig_ctx = self._rope.original
        self._needs_flash = kv.has_quantized_values
        if not self._make_context(layout):
            return False
        if not self._memory or lib.llama_model_has_encoder(self._model):
            raise LoadError("this is no text generation model: it has no decoder memory")
        if self._is_embedding:
            raise LoadError("this is no text generation model: each of its tokens sees those that follow")
        self.batch = Batch(lib, largest_batch)
        return True

    def _check_types(self, kv: KvTypes) -> None:
        """What llama.cpp does not check itself without flash attention. Raises `LoadError`."""
        if kv.has_quantized_values and not self.can_flash:
            raise LoadError(
                f"kv_cache_type {kv.keys}/{kv.values} needs flash attention, which is off in this mode: "
                f"it crashed here; {kv.keys}/f16 would do without"
            )
        if (width := self._head_width) % (block := BLOCKS.get(kv.keys, 1)):
            raise LoadError(
                f"keys of {width} values cannot be kept as {kv.keys}, which needs multiples of {block}"
            )

    @property
    def _head_width(self) -> int:
        """Values in the key of a head."""
        lib, model = self._lib, self._model
        said = self._metadata(f"{self._metadata('general.architecture')}.attention.key_length")
        if said.isdecimal():
            return int(said)
        return int(lib.llama_model_n_embd(model)) // max(1, int(lib.llama_model_n_head(model)))

    @property
    def _is_embedding(self) -> bool:
        """Made for vectors of whole texts, with a memory all the same."""
        architecture = self._metadata("general.architecture")
        return architecture == "llama-embed" or self._metadata(f"{architecture}.attention.causal") == "false"

    def _metadata(self, key: str) -> str:
        """A value of the file's header as text; "" if there is none."""
        buffer = ctypes.create_string_buffer(256)
        self._lib.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def resize(self, layout: Layout) -> bool:
        """Replace the memory by an empty one; False if there is no room for it: then there is none at all."""
        return self._make_context(layout)

    def _make_context(self, layout: Layout) -> bool:
        lib = self._lib
        if self._context:
            lib.llama_free(self._context)
        self._views.clear()
        self._params.n_ctx = layout.num_cells_in_all
        self._params.n_seq_max = layout.num_rows
        self._params.n_outputs_max = layout.num_rows  # the least; every row costs a vocabulary of floats
        self._params.kv_unified = layout.is_shared
        self._uses_flash = self.would_flash(layout)
        auto, off = lib.LLAMA_FLASH_ATTN_TYPE_AUTO, lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._params.flash_attn_type = auto if self._uses_flash else off
        self._context = lib.llama_init_from_model(self._model, self._params)
        if not self._context:
            return False
        self._adapters.put_on(self._context)
        self._memory = lib.llama_get_memory(self._context)
        return True

    def would_flash(self, layout: Layout) -> bool:
        """Attention over a memory of this layout would be flash attention."""
        wants_flash = self._has_gpu or self._needs_flash or layout.suits_flash or not self.has_plain_memory
        return self.can_flash and wants_flash

    # --- what the file says ---

    @property
    def rope_variant(self) -> str:
        """Which of two sets of rotary factors is used, "long" or "short"; "" if there is one. See `rope`."""
        return "" if self._rope is None else "long" if self._rope.is_long else "short"

    @property
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        self._lib.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    @property
    def chat_template(self) -> str | None:
        # Without one in the file, llama.cpp may answer with the name of one of its own.
        if self._lib.llama_model_meta_val_str(self._model, b"tokenizer.chat_template", None, 0) < 0:
            return None
        raw: bytes | None = self._lib.llama_model_chat_template(self._model, None)
        return raw.decode(errors="replace") if raw else None

    # --- computing ---

    def decode(self, is_wanted: Callable[[], bool] | None = None) -> bool:
        """Compute the batch; blocks without holding the GIL. Raises `DecodeError`.

        False if `is_wanted` ended it: what is new in its rows is to be cut off. That is asked before each of
        the graph's nodes, some tens of microseconds to milliseconds apart.
        """
        if is_wanted is None:
            return self._decode()
        lib = self._lib
        callback = lib.ggml_abort_callback(lambda _: is_wanted())
        lib.llama_set_abort_callback(self._context, callback, None)
        self._is_quiet = True
        try:
            return self._decode()
        finally:
            self._is_quiet = False
            lib.llama_set_abort_callback(self._context, lib.ggml_abort_callback(), None)

    def _decode(self) -> bool:
        status = self._lib.llama_decode(self._context, self.batch.native)
        if self._waiting is not None:
            self._waiting.look()
        if status not in (0, ABORTED):
            raise DecodeError(f"llama_decode failed with {status}: {self.said()}")
        if status == ABORTED:
            self._errors.clear()
        return bool(status == 0)

    @property
    def microbatch(self) -> int:
        """Tokens of a batch that are computed at once."""
        return int(self._params.n_ubatch)

    def logits(self, num_outputs: int) -> Floats:
        """The last batch's logits, a row for each that was wanted, in order; valid until the next decode."""
        pointer = self._lib.llama_get_logits(self._context)
        place = ctypes.addressof(pointer.contents), num_outputs
        view = self._views.get(place)
        if view is None:
            # Making one takes as long as choosing four tokens.
            shape = num_outputs, self.vocabulary.num_vocab
            view = self._views[place] = np.ctypeslib.as_array(pointer, shape)
        return view

    def warm_up(self, token: int) -> None:
        """Touch every weight once, also of experts seldom asked; the first row holds a token then."""
        lib = self._lib
        lib.llama_set_warmup(self._context, True)
        self.batch.clear()
        self.batch.add([token], position=0, row=0, wants_logits=True)
        self.decode()
        lib.llama_set_warmup(self._context, False)

    def set_threads(self, threads: int, batch_threads: int) -> None:
        """For a token alone, and for more at once."""
        self._params.n_threads, self._params.n_threads_batch = threads, batch_threads
        self._lib.llama_set_n_threads(self._context, threads, batch_threads)

    # --- memory ---

    @property
    def is_recurrent(self) -> bool:
        """Part of a sequence's state is no row of cells, but one value for all its tokens."""
        lib, model = self._lib, self._model
        return bool(lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))

    @property
    def sliding_window(self) -> int:
        """Tokens that layers with a sliding window look back at; 0 if there are none."""
        return int(self._lib.llama_model_n_swa(self._model))

    def share(self, source: int, target: int, num_tokens: int) -> None:
        """The first cells of a row are also those of another, where rows share their cells."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def cut(self, row: int, num_tokens: int) -> None:
        """Keep only the first tokens of a row."""
        self._lib.llama_memory_seq_rm(self._memory, row, num_tokens, -1)

    def clear(self, row: int) -> None:
        """Empty a row."""
        self._lib.llama_memory_seq_rm(self._memory, row, -1, -1)

    def save(self, row: int, layout: Layout) -> SequenceState:
        """A copy of what the row of a context of this layout holds, for `restore`."""
        lib = self._lib
        num_bytes = lib.llama_state_seq_get_size(self._context, row)
        state = SequenceState(num_bytes, *layout.stream(row))
        lib.llama_state_seq_get_data(self._context, _bytes_pointer(state.written()), num_bytes, row)
        return state

    def restore(self, row: int, state: SequenceState, layout: Layout) -> bool:
        """Fill an empty row with a saved state; False if llama.cpp does not take it."""
        if self.has_plain_memory and state.is_transposed == self._uses_flash:
            state = state.turned()
        data = state.wanted(*layout.stream(row))
        return bool(self._lib.llama_state_seq_set_data(self._context, _bytes_pointer(data), data.size, row))

    def first_held(self, row: int) -> int:
        """Position of the first token that all layers hold for the row; -1 if there is none."""
        return int(self._lib.llama_memory_seq_pos_min(self._memory, row))

    def num_held(self, row: int) -> int:
        """Tokens held for the row."""
        return int(self._lib.llama_memory_seq_pos_max(self._memory, row)) + 1

    # --- sampling ---

    @property
    def library(self) -> Any:
        return self._lib

    def sample(self, chain: Any, row: Floats) -> int:
        """Draw from a row of logits and tell the chain."""
        candidates = self._candidates
        candidates["id"] = self._ids
        candidates["logit"] = row
        data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(self._lib.llama_token_data))
        array = self._lib.llama_token_data_array(data=data, size=row.size, selected=-1, sorted=False)
        self._lib.llama_sampler_apply(chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        self._lib.llama_sampler_accept(chain, token)
        return token

    # --- log ---

    def _on_log(self, level: int, text: bytes, _: Any) -> None:
        if level == LOG_ERROR:
            line = text.decode(errors="replace").strip()
            self._errors.append(line)
            del self._errors[:-8]
            if not self._is_quiet:
                print(line, file=sys.stderr, flush=True)

    def said(self) -> str:
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
