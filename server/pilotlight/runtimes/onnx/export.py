"""What `genai_config.json` says of an exported model: where its graph is, and what it takes and gives.

Knows the file, not the library.
"""

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.folder import file_name, read_json

CONFIG = "genai_config.json"

LARGEST_COUNT, MOST_TOKENS = 4096, 2**24
"""Above what any model has; a stranger's file may say anything."""


class Export(Struct, frozen=True):
    """One model folder's decoder."""

    graph: Path
    kind: str
    """The architecture, "llama" or such."""
    context_trained: int
    num_vocab: int
    end_tokens: tuple[int, ...]
    num_layers: int
    num_kv_heads: int
    head_size: int
    input_ids: str
    attention_mask: str
    position_ids: str
    logits: str
    past: tuple[str, str]
    """Patterns of the names of a layer's keys and values."""
    present: tuple[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Export":
        """Raises `LoadError` for what is no such folder."""
        if not folder.exists():
            raise LoadError(f"{folder} does not exist")
        config = read_json(folder / CONFIG)
        try:
            model = config["model"]
            decoder = model["decoder"]
            inputs, outputs = decoder["inputs"], decoder["outputs"]
            ends = model["eos_token_id"]
            return cls(
                graph=folder / file_name(decoder["filename"]),
                kind=str(model["type"]),
                context_trained=_count(model["context_length"], MOST_TOKENS),
                num_vocab=_count(model["vocab_size"], MOST_TOKENS),
                end_tokens=tuple(map(int, ends if isinstance(ends, list) else [ends])),
                num_layers=_count(decoder["num_hidden_layers"]),
                num_kv_heads=_count(decoder["num_key_value_heads"]),
                head_size=_count(decoder["head_size"]),
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                position_ids=inputs.get("position_ids", "position_ids"),
                logits=outputs["logits"],
                past=(_pattern(inputs["past_key_names"]), _pattern(inputs["past_value_names"])),
                present=(_pattern(outputs["present_key_names"]), _pattern(outputs["present_value_names"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            reason = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise LoadError(f"{folder / CONFIG} describes no text generation model: {reason}") from exc

    def states(self) -> Iterator[tuple[str, str]]:
        """Names of the input and the output of every key and value tensor."""
        for layer in range(self.num_layers):
            for past, present in zip(self.past, self.present, strict=True):
                yield past.replace("%d", str(layer)), present.replace("%d", str(layer))


def _count(value: int, most: int = LARGEST_COUNT) -> int:
    """Of layers, heads or features; of tokens."""
    if not 0 < int(value) <= most:
        raise ValueError(f"{value} is not between 1 and {most}")
    return int(value)


def _pattern(value: str) -> str:
    """A name in which `%d` stands for the layer's number."""
    if value.count("%d") != 1:
        raise ValueError(f"{value!r} does not hold %d once")
    return value
