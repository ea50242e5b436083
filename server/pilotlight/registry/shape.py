"""The sizes of a GGUF model that decide what it costs, from its header."""

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from pilotlight.registry.gguf import Header, Tensor
from pilotlight.registry.reader import HeaderError

SWA_PERIODS = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
}
"""Architectures whose files do not say which layers look back only a window: all but every so-manieth."""

RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
"""Architectures without attention."""

BOTH = ("falcon-h1",)
"""Architectures whose layers have attention and a recurrent state."""

PER_LAYER = "per_layer_token_embd"
LOOKED_UP = ("token_embd", PER_LAYER)
"""How the names of tensors begin of which a token only takes a row."""

BLOCK = re.compile(r"blk\.([0-9]{1,4})\.")
"""How the name of a layer's tensor begins."""

DEFAULT_ATTENTION_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}

LOOPED = ("nanbeige",)
"""Architectures of which a token may go through all layers more than once: they keep it each time."""

MOST_LOOPED = 512
"""Layers that llama.cpp has room for, each of them counted as often as a token goes through it."""


class Layer(Struct, frozen=True):
    """What one layer remembers: widths of a token's key and value, or bytes of state per sequence."""

    key: int = 0
    value: int = 0
    window: int = 0
    """Tokens it looks back; 0 for all."""
    state_bytes: int = 0


class Shape(Struct, frozen=True):
    """The sizes of a model that decide what it costs."""

    architecture: str
    layers: tuple[Layer, ...]
    width: int
    num_heads: int
    head_width: int
    """Values in the key of a head."""
    feed_forward: int
    """Values between the two halves of the widest layer, for all experts that a token uses."""
    context_trained: int
    num_vocab: int
    num_merges: int
    bytes_weights: int
    bytes_active: int
    """Weights that one token passes through."""
    matrices: Mapping[str, int] = field(default_factory=dict)
    """Bytes by their kind; under "" of what is only looked up, or has one row."""
    bytes_by_place: tuple[int, ...] = ()
    """Weights of what is looked up, of each layer, and of the output."""
    tied: Tensor | None = None
    """The embedding, if it is the output matrix, too."""

    @property
    def has_plain_memory(self) -> bool:
        """Keys and values of all tokens, and nothing else."""
        return not any(layer.window or layer.state_bytes for layer in self.layers)

    def bytes_repacked(self, kinds: Container[str]) -> int:
        """Of the matrices of these kinds."""
        return sum(num_bytes for kind, num_bytes in self.matrices.items() if kind in kinds)

    def bytes_mapped(self, repacked: Container[str]) -> int:
        """Of a mapped file: what is used where it is; the rest is let go of."""
        return self.bytes_weights - self.bytes_repacked(repacked)

    def is_better_mapped(self, repacked: Container[str]) -> bool:
        """Most of it is only read to be repacked, so a copy of it would be made in vain.

        What is used where it is had better be read: it lies in huge pages then.
        """
        return 2 * self.bytes_repacked(repacked) > self.bytes_weights

    def divided(self, num_staying: int) -> tuple["Shape", "Shape"]:
        """The first so many layers with what is looked up, and the others with the output.

        An embedding that is the output, too, is in both.
        """
        split = 1 + num_staying
        here = sum(self.bytes_by_place[:split])
        there = self.bytes_weights - here + (self.tied.num_bytes if self.tied else 0)
        stays = replace(self, layers=self.layers[:num_staying], bytes_weights=here, matrices={}, tied=None)
        goes = replace(self, layers=self.layers[num_staying:], bytes_weights=there, matrices={}, tied=None)
        return stays, goes

    @classmethod
    def of(cls, header: Header) -> "Shape":
        """Raises `HeaderError` if the header is of no text model, or lacks what every one has."""
        arch = header.text("general.architecture")
        if arch is None or header.text("general.type") == "mmproj" or arch == "clip":
            raise HeaderError(f"this is no text model: its architecture is {arch or 'not given'}")
        facts = _Facts(header, arch)
        loaded = [tensor for tensor in header.tensors if facts.is_loaded(tensor)]
        tensors = {tensor.name: tensor for tensor in loaded}
        embedding = tensors.get("token_embd.weight")
        num_vocab = embedding.shape[-1] if embedding else header.count("tokenizer.ggml.tokens")
        layers = facts.num_loops * tuple(facts.layer(number) for number in range(facts.num_layers))
        return cls(
            architecture=arch,
            layers=layers,
            width=facts.width,
            num_heads=facts.num_heads,
            head_width=facts.head_width,
            feed_forward=facts.feed_forward,
            context_trained=header.number(f"{arch}.context_length") or 0,
            num_vocab=num_vocab,
            num_merges=header.count("tokenizer.ggml.merges"),
            bytes_weights=sum(tensor.num_bytes for tensor in loaded),
            bytes_active=_bytes_active(loaded, facts),
            matrices=_matrices(loaded),
            bytes_by_place=_bytes_by_place(loaded, len(layers)),
            tied=None if "output.weight" in tensors else embedding,
        )


def _bytes_active(tensors: Sequence[Tensor], facts: "_Facts") -> int:
    """All weights but those of experts that stay out, and of what is only looked up; layers as often as a
    token goes through them."""
    has_output = any(tensor.name == "output.weight" for tensor in tensors)
    looked_up = LOOKED_UP if has_output else (PER_LAYER,)  # the other one is the output, too
    passed = [tensor for tensor in tensors if not tensor.name.startswith(looked_up)]
    experts = sum(tensor.num_bytes for tensor in passed if "_exps." in tensor.name)
    idle = experts - experts * facts.experts_used // max(1, facts.num_experts)
    layers = sum(tensor.num_bytes for tensor in passed if BLOCK.match(tensor.name)) - idle
    others = sum(tensor.num_bytes for tensor in passed if not BLOCK.match(tensor.name))
    return facts.num_loops * layers + others


def _matrices(tensors: Sequence[Tensor]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for tensor in tensors:
        is_multiplied = len(tensor.shape) > 1 and not tensor.name.startswith(LOOKED_UP)
        found[tensor.kind if is_multiplied else ""] += tensor.num_bytes
    return dict(found)


def _bytes_by_place(tensors: Sequence[Tensor], num_layers: int) -> tuple[int, ...]:
    found = [0] * (num_layers + 2)
    for tensor in tensors:
        found[_place(tensor.name, num_layers)] += tensor.num_bytes
    return tuple(found)


def _place(name: str, num_layers: int) -> int:
    """As in `Shape.bytes_by_place`; what is beyond the last layer belongs to the output."""
    block = BLOCK.match(name)
    if block is None:
        return num_layers + 1 if name.startswith("output") else 0
    return min(int(block[1]), num_layers) + 1


class _Facts:
    """Reads the numbers of one architecture, and refuses those that no model can have."""

    def __init__(self, header: Header, arch: str) -> None:
        self._header = header
        self._arch = arch
        self.num_layers = self._bounded("block_count", 1, 4096)
        self.num_loops = 1
        if arch in LOOPED:
            self.num_loops = self._bounded("num_loops", 1, max(1, MOST_LOOPED // self.num_layers), default=1)
        self.width = self._bounded("embedding_length", 1, 2**20)
        self.num_heads = max(self._by_layer("attention.head_count", 1)) or 1
        self.num_experts = self._number("expert_count", 0)
        self.experts_used = min(self.num_experts, self._number("expert_used_count", 0))
        dense = max(self._by_layer("feed_forward_length", 0))
        expert = self._number("expert_feed_forward_length", dense) * self.experts_used
        self.feed_forward = max(dense, expert)
        self._kv_heads = self._by_layer("attention.head_count_kv", self.num_heads)
        self._dense = self._by_layer("feed_forward_length", 0)
        head = self.width // self.num_heads
        self.head_width = self._number("attention.key_length", head)
        self._value = self._number("attention.value_length", head)
        self._window = self._number("attention.sliding_window", 0)
        self._is_mla = bool(self._number("attention.key_length_mla", 0))
        self._num_own = self.num_layers - self._number("attention.shared_kv_layers", 0)
        num_ahead = self._number("nextn_predict_layers", 0)
        if num_ahead > self.num_layers:
            raise HeaderError(
                f"it has {self.num_layers} layers, and {num_ahead} of them only guess tokens ahead"
            )
        # llama.cpp leaves them out, but counts them where it counts layers on a GPU.
        self._num_loaded = self.num_layers - num_ahead if num_ahead < self.num_layers else self.num_layers

    def is_loaded(self, tensor: Tensor) -> bool:
        """It is none of the last layers, if those only guess tokens ahead."""
        block = BLOCK.match(tensor.name)
        return block is None or not self._num_loaded <= int(block[1]) < self.num_layers

    def layer(self, number: int) -> Layer:
        """What that layer remembers."""
        if number >= self._num_loaded:
            return Layer()
        state = 0
        if self._is_recurrent(number):
            state = self._state_bytes()
            if self._arch not in BOTH:
                return Layer(state_bytes=state)
        if number >= self._num_own:
            return Layer()
        window = self._window if self._is_windowed(number) else 0
        heads = self._kv_heads[number]
        swa = "_swa" if window else ""
        key = self._number(f"attention.key_length{swa}", self.head_width) * heads
        value = 0 if self._is_mla else self._number(f"attention.value_length{swa}", self._value) * heads
        return Layer(key, value, window, state)

    def _is_recurrent(self, number: int) -> bool:
        if self._arch in RECURRENT or self._arch in BOTH:
            return True
        default = DEFAULT_ATTENTION_INTERVAL.get(self._arch, 0)
        if interval := self._number("full_attention_interval", default):
            return (number + 1) % interval != 0
        is_plain = self._arch.startswith("nemotron_h") and self._dense[number] > 0
        return self._kv_heads[number] == 0 and not is_plain

    def _is_windowed(self, number: int) -> bool:
        pattern = self._header.metadata.get(f"{self._arch}.attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            return number < len(pattern) and bool(pattern[number])
        period = self._number("attention.sliding_window_pattern", SWA_PERIODS.get(self._arch, 1))
        return period > 1 and number % period < period - 1

    def _state_bytes(self) -> int:
        """In 32 bits: what the convolution looks back to, and the state itself."""
        if head := self._number("wkv.head_size", 0):
            return 4 * self.width * (self._number("token_shift_count", 2) + head)
        if back := self._number("shortconv.l_cache", 0):
            return 4 * self.width * (back - 1)
        kernel = self._number("ssm.conv_kernel", 0)
        if head := self._number("kda.head_dim", 0):
            # Of queries, keys and values each; as llama.cpp has it, which counts 3 where the file says none.
            return 4 * head * self.num_heads * (3 * (kernel - 1 if kernel else 3) + head)
        inner, state = self._number("ssm.inner_size", 0), self._number("ssm.state_size", 0)
        groups = self._number("ssm.group_count", 0)
        return 4 * ((max(1, kernel) - 1) * (inner + 2 * groups * state) + state * inner)

    def _number(self, key: str, default: int) -> int:
        value = self._header.number(f"{self._arch}.{key}")
        if value is not None and value >= 2**24:
            raise HeaderError(f"{self._arch}.{key} is {value}, which no model has")
        return default if value is None else value

    def _bounded(self, key: str, least: int, most: int, *, default: int = 0) -> int:
        value = self._number(key, default)
        if not least <= value <= most:
            raise HeaderError(f"{self._arch}.{key} is {value}; it must be {least} to {most}")
        return value

    def _by_layer(self, key: str, default: int) -> tuple[int, ...]:
        """One number for each layer: the file has an array, or one for all."""
        value = self._header.metadata.get(f"{self._arch}.{key}")
        if not isinstance(value, tuple):
            return (self._number(key, default),) * self.num_layers
        numbers = tuple(number for number in value if isinstance(number, int) and 0 <= number < 2**24)
        if len(numbers) != len(value) or len(numbers) < self.num_layers:
            raise HeaderError(
                f"{self._arch}.{key} does not have a number for each of {self.num_layers} layers"
            )
        return numbers[: self.num_layers]
