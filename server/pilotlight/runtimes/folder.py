"""A model's folder as Hugging Face lays it out: tokenizer, special tokens, chat template.

What every runtime that loads folders needs besides weights. Knows neither a runtime nor its own files there.
"""

import json
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pilotlight.chat.template import ChatTemplate
from pilotlight.core import Sampling
from pilotlight.runtimes.base import LoadError, MissingLibraryError
from pilotlight.runtimes.sampling import Sampler
from pilotlight.runtimes.vocabulary import THOUGHTS

LONGEST_NAME = 255
"""Bytes: what file systems take."""

CHANNEL = "<|channel|>"
CHANNELS = frozenset((CHANNEL, "<|start|>", "<|message|>", "<|constrain|>", "<|end|>"))
"""In a vocabulary with `CHANNEL` these are text, as in llama.cpp: they tell an answer from thoughts."""

ENDS = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "[e~[",
    )
)
"""Control tokens that end an answer though no file may say so: those of llama.cpp's `llama-vocab.cpp`."""

END_OF_PART = "<|end|>"
HAVE_PARTS = (frozenset(("<|return|>", "<|call|>")), frozenset(("<|flush|>", "<|calls|>")))
"""Vocabularies in which that ends only a part of the answer, as in llama.cpp: of gpt-oss and Solar Open."""

TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"


class Folder:
    """The tokens and the template of one folder; a `Vocabulary` of `num_vocab` tokens."""

    def __init__(
        self, path: Path, *, num_vocab: int, end_tokens: Iterable[int], other_ends: Iterable[int] = ()
    ) -> None:
        """`num_vocab` is the width of the model's logits, which may be more than the tokenizer knows.

        The tokenizer's own end token is one of the `end_tokens`, too, and so are `ENDS`; those beyond the
        logits are none. Of `other_ends`, which may be another tokenizer's, those that are no ordinary text.
        Raises `LoadError`.
        """
        self._path = path
        self._config = read_json(path / TOKENIZER_CONFIG) if (path / TOKENIZER_CONFIG).exists() else {}
        self._tokenizer = _load_tokenizer(path / TOKENIZER)
        layout = read_json(path / TOKENIZER)
        self._added = {int(token["id"]): token for token in layout.get("added_tokens", ())}
        self._bytes_of = _byte_alphabet() if '"ByteLevel"' in json.dumps(layout.get("decoder")) else None
        self.piece = cache(self._read_piece)
        self.num_vocab = num_vocab
        eos = self._tokenizer.token_to_id(self.special_text("eos"))
        ends = (*end_tokens, *(token for token in other_ends if token in self._added), *self._known_ends())
        self.end_tokens = self._within((*ends, *(() if eos is None else (eos,))))
        self.suppressed = self._within(self._read_suppressed())
        """Tokens that the model's makers want never to be picked."""
        bos = self._tokenizer.token_to_id(self.special_text("bos"))
        self._prefix = list(self._tokenizer.encode("").ids)
        self.adds_bos = bos is not None and self._prefix[:1] == [bos]
        has_channels = self._tokenizer.token_to_id(CHANNEL) is not None
        self._shown = THOUGHTS | CHANNELS if has_channels else THOUGHTS

    def special_text(self, name: str) -> str:
        """Text of the `bos` or `eos` token, "" if there is none."""
        token = self._config.get(f"{name}_token")
        return str((token.get("content") if isinstance(token, dict) else token) or "")

    def is_control(self, token: int) -> bool:
        """It marks structure and stands for no text."""
        return bool(self._added.get(token, {}).get("special"))

    def control_text(self, token: int) -> str:
        """What becomes this control token where it stands in a text."""
        return str(self._added[token]["content"])

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; text of special tokens becomes those tokens.

        What the tokenizer would add is not added to a text that begins with it, as many templates' do.
        """
        tokens = list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)
        count = len(self._prefix)
        is_doubled = add_special and tokens[: 2 * count] == 2 * self._prefix
        return tokens[count:] if is_doubled else tokens

    def _read_piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for those that no text has, and for most control tokens."""
        text = self._tokenizer.id_to_token(token)
        is_shown = text in self._shown and token not in self.end_tokens
        if text is None or (self.is_control(token) and not is_shown):
            return b""
        is_added = token in self._added
        if self._bytes_of is not None and is_added:
            return str(text).encode()
        if self._bytes_of is not None:
            return b"".join(self._bytes_of.get(letter, letter.encode()) for letter in text)
        if not is_added and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes.fromhex(text[3:5])
        # Of those that were added, too: Gemma's runs of spaces are.
        return str(text).replace("\u2581", " ").encode()

    def make_sampler(
        self, sampling: Sampling, index: int, prompt: Sequence[int], banned: Sequence[int]
    ) -> Sampler:
        """One that picks no suppressed token either."""
        return Sampler(sampling, index, prompt, (*banned, *self.suppressed))

    def _known_ends(self) -> list[int]:
        """Control tokens that end an answer by their text.

        Control tokens only: `</s>` is a mark of HTML in some vocabularies.
        """
        controls = {self.control_text(token): token for token in self._added if self.is_control(token)}
        has_parts = any(marks <= controls.keys() for marks in HAVE_PARTS)
        texts = ENDS - {END_OF_PART} if has_parts else ENDS
        return [token for text, token in controls.items() if text in texts]

    def _read_suppressed(self) -> list[int]:
        """What the folder says, if that is a list; what is no number is none of its tokens."""
        file = self._path / GENERATION_CONFIG
        found = read_json(file).get("suppress_tokens") if file.exists() else None
        return [token for token in found if type(token) is int] if isinstance(found, list) else []

    def _within(self, tokens: Iterable[int]) -> frozenset[int]:
        """Those that the logits reach."""
        return frozenset(token for token in tokens if 0 <= token < self.num_vocab)

    def template(self, override: str | None) -> ChatTemplate | None:
        """The folder's chat template, or the one that somebody set instead; None if there is none."""
        source = override or self._template_source()
        if source is None:
            return None
        return ChatTemplate(source, bos=self.special_text("bos"), eos=self.special_text("eos"))

    def _template_source(self) -> str | None:
        """From its own file, else from the tokenizer's; of several, the one that is named default."""
        if (self._path / TEMPLATE).is_file():
            return (self._path / TEMPLATE).read_text(encoding="utf-8", errors="replace")
        found = self._config.get("chat_template")
        if isinstance(found, list):
            found = next((one.get("template") for one in found if one.get("name") == "default"), None)
        return found if isinstance(found, str) else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of the folder. Raises `LoadError`."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise LoadError(f"{path.parent} has no {path.name}") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise LoadError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(value, dict):
        raise LoadError(f"{path} holds no JSON object")
    return value


def file_name(value: str) -> str:
    """The name of a file of the folder itself: a stranger's folder must not lead out of it.

    Raises `ValueError`.
    """
    if value != Path(value).name or value == ".." or len(os.fsencode(value)) > LONGEST_NAME:
        raise ValueError(f"{value!r} is no file name")
    return value


def _load_tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise MissingLibraryError(exc, "tokenizers", "tokenizers") from exc
    if not path.is_file():
        raise LoadError(f"{path.parent} has no {path.name}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises nothing more special
        raise LoadError(f"{path} is no tokenizer: {exc}") from exc
    # Left over from training: prompts would be cut short, or filled up, in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _byte_alphabet() -> dict[str, bytes]:
    """The byte that each letter of a byte-level vocabulary stands for; invisible ones are from 256 up."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(256, 512))
    return {chr(byte if byte in visible else next(hidden)): bytes([byte]) for byte in range(256)}
