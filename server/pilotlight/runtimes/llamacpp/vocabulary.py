"""The tokens of a model that llama.cpp has loaded."""

import ctypes
from functools import cache
from typing import Any

from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.rows import DecodeError
from pilotlight.runtimes.vocabulary import THOUGHTS

BEYOND_ASCII = range(0x80, 0xF5)
"""The bytes that other characters are made of in UTF-8."""


class LlamaVocabulary:
    """The `Vocabulary` of a `llama_model`, which it must not outlive."""

    def __init__(self, lib: Any, model: Any) -> None:
        """Raises `LoadError`."""
        self._lib = lib
        self._vocab = vocab = lib.llama_model_get_vocab(model)
        self.num_vocab: int = lib.llama_vocab_n_tokens(vocab)
        is_end = lib.llama_vocab_is_eog
        self.end_tokens = frozenset(token for token in range(self.num_vocab) if is_end(vocab, token))
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(vocab))
        self.suppressed = self._read_suppressed()
        """Tokens that the model's makers want never to be picked."""
        self._check_bytes()
        self.piece = cache(self._read_piece)
        self.special_text = cache(self._read_special_text)

    def _read_suppressed(self) -> tuple[int, ...]:
        count = ctypes.c_int32()
        tokens = self._lib.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        return tuple(tokens[: count.value]) if count.value else ()

    def _check_bytes(self) -> None:
        """llama.cpp ends the process at a character for whose bytes it finds no token. Raises `LoadError`."""
        if self._lib.llama_vocab_type(self._vocab) != self._lib.LLAMA_VOCAB_TYPE_SPM:
            return
        missing = {f"<0x{byte:02X}>".encode() for byte in BEYOND_ASCII}
        for token in range(self.num_vocab):
            missing.discard(self._lib.llama_vocab_get_text(self._vocab, token))
            if not missing:
                return
        raise LoadError(f"its vocabulary has no tokens for {len(missing)} of the bytes that text is made of")

    def _read_special_text(self, name: str) -> str:
        """Text of the `bos` or `eos` token, "" if the vocabulary has none."""
        token = getattr(self._lib, f"llama_vocab_{name}")(self._vocab)
        return "" if token < 0 else self.control_text(token)

    def is_control(self, token: int) -> bool:
        """It marks structure (a turn's end, a role) and stands for no text."""
        return bool(self._lib.llama_vocab_is_control(self._vocab, token))

    def control_text(self, token: int) -> str:
        """What becomes this control token where it stands in a text."""
        return str(self._lib.llama_vocab_get_text(self._vocab, token).decode(errors="replace"))

    def filler(self) -> int:
        """A token every vocabulary has, to compute where it does not matter which."""
        bos = self._lib.llama_vocab_bos(self._vocab)
        return int(bos) if bos >= 0 else 0

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; text of special tokens becomes those tokens."""
        raw = text.encode()
        size = len(raw) + 8
        tokens = (self._lib.llama_token * size)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), tokens, size, add_special, True)
        if count < 0:
            raise DecodeError(f"cannot tokenize {len(raw)} bytes of text")
        return list(tokens[:count])

    def _read_piece(self, token: int) -> bytes:
        """The bytes a token stands for; of control tokens, only `THOUGHTS` have any."""
        text = self.control_text(token)
        if text in THOUGHTS and token not in self.end_tokens:
            return text.encode()
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count
