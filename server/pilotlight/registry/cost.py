"""What a worker with a GGUF model will hold in memory: from the file's header and the settings to bytes.

Pure arithmetic on the CPU. It follows what llama.cpp takes for weights, keys and values, recurrent state, its
graph and its output; the constants at the top are what the rest was measured to be.
"""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from pilotlight.registry.gguf import KINDS, Header, Tensor
from pilotlight.registry.reader import HeaderError
from pilotlight.runtimes.limits import DEFAULT_CONTEXT, DEFAULT_PARALLEL

BLOCKS = {name: (block, num_bytes) for name, block, num_bytes in KINDS.values()}

MICROBATCH = 128
WARM_UP_TOKENS = 16
"""As in `runtimes.llamacpp`, which the daemon does not import: a test holds them together."""

PROCESS_BYTES = 26 * 10**6
"""Python with numpy, a template engine and our own code, and llama.cpp's tables without any model."""

LIBRARY_BYTES = 23 * 10**6
"""Pages of the interpreter's and libraries' own files."""

BYTES_PER_WORD = 208
BYTES_PER_MERGE = 95
"""The tokenizer's tables, without the output buffer."""

BYTES_PER_LAYER = 100_000
"""Of a graph's nodes, in the tables of graph and scheduler."""

LATER_BYTES = 8 * 10**6
"""What a process at work takes for what has no size of its own: frames, texts, allocator."""

PAD_CELLS = 256

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

DEFAULT_ATTENTION_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a worker loads a model and lays its memory out; what decides bytes besides the file."""

    context: int = DEFAULT_CONTEXT
    """Tokens of all sequences together."""
    parallel: int = DEFAULT_PARALLEL
    microbatch: int = MICROBATCH
    key_kind: str = "F16"
    value_kind: str = "F16"
    """Types of the cells, as in `gguf.KINDS`."""
    flash_attention: bool = False
    full_windows: bool = True
    """Layers that look back only a window keep every token all the same."""
    mmap: bool = False
    repacked: frozenset[str] = frozenset()
    """Kinds of matrices that this processor wants in another order: see `repacked_kinds`."""
    bytes_adapters: int = 0
    outside: float = 1.0
    """Tokens outside the cells at most, in contexts: half of one parked, half of one carried to new cells."""

    @property
    def first_cells(self) -> int:
        """It begins with the least for each sequence, or in all, and takes more up to the context."""
        return PAD_CELLS * (self.parallel if self.parallel * PAD_CELLS <= self.context else 1)


@dataclass(frozen=True, slots=True)
class Parts:
    """Bytes by what they are for."""

    weights: int
    """Of its own."""
    mapped: int
    """Weights that stay in the file's pages."""
    cells: int
    """Keys, values and recurrent state, also of parked tokens."""
    compute: int
    """The graph's intermediate results, and the output."""
    process: int
    libraries: int

    @property
    def private(self) -> int:
        """What ends with the process."""
        return self.weights + self.cells + self.compute + self.process

    @property
    def shared(self) -> int:
        """Pages of files: several processes may share them, and the system may drop them."""
        return self.mapped + self.libraries

    @property
    def total(self) -> int:
        return self.private + self.shared


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes right after the load, and when the whole context is in use."""

    at_load: Parts
    at_most: Parts

    @property
    def most(self) -> int:
        """A short context in use can be less than what the load alone takes."""
        return max(self.at_load.total, self.at_most.total)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer remembers: widths of a token's key and value, or bytes of state per sequence."""

    key: int = 0
    value: int = 0
    window: int = 0
    """Tokens it looks back; 0 for all."""
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
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
    bytes_of_matrices: Mapping[str, int] = field(default_factory=dict)
    """By their kind, without those that are only looked up."""
    tied: Tensor | None = field(default=None)
    """The embedding, if it is the output matrix, too."""

    @property
    def has_plain_memory(self) -> bool:
        """Keys and values of all tokens, and nothing else."""
        return not any(layer.window or layer.state_bytes for layer in self.layers)

    @classmethod
    def of(cls, header: Header) -> "Shape":
        """Raises `HeaderError` if the header is of no text model, or lacks what every one has."""
        arch = header.text("general.architecture")
        if arch is None or header.text("general.type") == "mmproj" or arch == "clip":
            raise HeaderError(f"this is no text model: its architecture is {arch or 'not given'}")
        facts = _Facts(header, arch)
        tensors = {tensor.name: tensor for tensor in header.tensors}
        embedding = tensors.get("token_embd.weight")
        num_vocab = embedding.shape[-1] if embedding else header.count("tokenizer.ggml.tokens")
        return cls(
            architecture=arch,
            layers=tuple(facts.layer(number) for number in range(facts.num_layers)),
            width=facts.width,
            num_heads=facts.num_heads,
            head_width=facts.head_width,
            feed_forward=facts.feed_forward,
            context_trained=header.number(f"{arch}.context_length") or 0,
            num_vocab=num_vocab,
            num_merges=header.count("tokenizer.ggml.merges"),
            bytes_weights=header.bytes_weights,
            bytes_active=_bytes_active(header, facts, embedding),
            bytes_of_matrices=_bytes_of_matrices(header),
            tied=None if "output.weight" in tensors else embedding,
        )


def estimate(shape: Shape, layout: Layout) -> Estimate:
    """What a worker with this model and layout holds."""
    warm_up = max(
        _graph_bytes(shape, layout, WARM_UP_TOKENS, PAD_CELLS, 1),
        _graph_bytes(shape, layout, layout.parallel, PAD_CELLS, layout.parallel),
    )
    return Estimate(
        at_load=_parts(
            shape,
            layout,
            cells=cell_bytes(shape, layout, layout.first_cells),
            compute=_output_bytes(shape, layout) + warm_up,
        ),
        at_most=_parts(
            shape,
            layout,
            cells=cell_bytes(shape, layout, layout.context) + _outside_bytes(shape, layout),
            compute=_output_bytes(shape, layout)
            + _graph_bytes(shape, layout, layout.microbatch, layout.context, layout.parallel)
            + _work_bytes(shape, layout),
            later=LATER_BYTES,
        ),
    )


def cell_bytes(shape: Shape, layout: Layout, num_cells: int) -> int:
    """Keys, values and recurrent state of a context of so many tokens."""
    num_cells = _padded(num_cells)
    total = 0
    for layer in shape.layers:
        held = num_cells
        if layer.window and not layout.full_windows:
            held = _window_cells(layer.window, layout, num_cells)
        total += held * (_row_bytes(layer.key, layout.key_kind) + _row_bytes(layer.value, layout.value_kind))
        total += layer.state_bytes * layout.parallel
    return total


def repacked_kinds(features: Container[str]) -> frozenset[str]:
    """The kinds llama.cpp puts into another order on a processor with these features, as cpuinfo has them."""
    if "amx_int8" in features and "avx512_vnni" in features:
        return frozenset(("F16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ4_NL", "MXFP4"))
    if "avx2" in features:
        return frozenset(("Q4_0", "Q4_K", "IQ4_NL", "MXFP4", *(("Q2_K",) if "avx512f" in features else ())))
    if "asimddp" in features:
        return frozenset(("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"))
    return frozenset()


def _parts(shape: Shape, layout: Layout, *, cells: int, compute: int, later: int = 0) -> Parts:
    weights = shape.bytes_weights
    # A matrix that is looked up and multiplied with is needed in both orders.
    twice = shape.tied.num_bytes if shape.tied and shape.tied.kind in layout.repacked else 0
    # What is repacked was read from the mapped pages, and they stay.
    repacked = sum(shape.bytes_of_matrices.get(kind, 0) for kind in layout.repacked)
    tables = shape.num_vocab * BYTES_PER_WORD + shape.num_merges * BYTES_PER_MERGE
    return Parts(
        weights=layout.bytes_adapters + twice + (repacked if layout.mmap else weights),
        mapped=weights if layout.mmap else 0,
        cells=cells,
        compute=compute,
        process=PROCESS_BYTES + tables + len(shape.layers) * BYTES_PER_LAYER + later,
        libraries=LIBRARY_BYTES,
    )


def _output_bytes(shape: Shape, layout: Layout) -> int:
    """A row of logits for each slot, cleared and thus taken at once."""
    return 4 * shape.num_vocab * layout.parallel


def _graph_bytes(shape: Shape, layout: Layout, num_tokens: int, num_cells: int, num_outputs: int) -> int:
    """The graph's largest moment: in a feed-forward block, in attention, or at the output."""
    mask = num_tokens * num_cells * (2 if layout.flash_attention else 4)
    feed_forward = 4 * num_tokens * (4 * shape.feed_forward + shape.width) + mask
    attention = 4 * num_tokens * 6 * shape.width + mask
    if not layout.flash_attention:
        attention += 4 * num_tokens * num_cells * shape.num_heads
    output = 4 * num_outputs * (shape.num_vocab + 2 * shape.width)
    return max(feed_forward, attention, output)


def _work_bytes(shape: Shape, layout: Layout) -> int:
    """What the processor's kernels note down: a product's right side in the left one's type."""
    per_token = 2 * max(shape.feed_forward, shape.width)
    if not layout.flash_attention:
        per_token = max(per_token, 2 * layout.context * shape.num_heads)
    return layout.microbatch * per_token


def _outside_bytes(shape: Shape, layout: Layout) -> int:
    return int(layout.outside * cell_bytes(shape, layout, layout.context))


def _window_cells(window: int, layout: Layout, num_cells: int) -> int:
    """As llama.cpp does it: the window, for each sequence, and room for a microbatch."""
    return min(num_cells, _padded(window * layout.parallel + layout.microbatch))


def _row_bytes(width: int, kind: str) -> int:
    block, num_bytes = BLOCKS[kind]
    return -(-width // block) * num_bytes


def _padded(num_cells: int) -> int:
    return -(-num_cells // PAD_CELLS) * PAD_CELLS


def _bytes_active(header: Header, facts: "_Facts", embedding: Tensor | None) -> int:
    """All weights but those of experts that stay out, and of an embedding that is only looked up."""
    experts = sum(tensor.num_bytes for tensor in header.tensors if "_exps." in tensor.name)
    is_output = all(tensor.name != "output.weight" for tensor in header.tensors)
    looked_up = 0 if embedding is None or is_output else embedding.num_bytes
    idle = experts - experts * facts.experts_used // max(1, facts.num_experts)
    return header.bytes_weights - looked_up - idle


def _bytes_of_matrices(header: Header) -> dict[str, int]:
    found = Counter[str]()
    for tensor in header.tensors:
        if len(tensor.shape) > 1 and not tensor.name.startswith("token_embd"):
            found[tensor.kind] += tensor.num_bytes
    return dict(found)


class _Facts:
    """Reads the numbers of one architecture, and refuses those that no model can have."""

    def __init__(self, header: Header, arch: str) -> None:
        self._header = header
        self._arch = arch
        self.num_layers = self._bounded("block_count", 1, 4096)
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

    def layer(self, number: int) -> Layer:
        """What that layer remembers."""
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
        inner, state = self._number("ssm.inner_size", 0), self._number("ssm.state_size", 0)
        groups, kernel = self._number("ssm.group_count", 0), self._number("ssm.conv_kernel", 1)
        return 4 * ((max(1, kernel) - 1) * (inner + 2 * groups * state) + state * inner)

    def _number(self, key: str, default: int) -> int:
        value = self._header.number(f"{self._arch}.{key}")
        if value is not None and value >= 2**24:
            raise HeaderError(f"{self._arch}.{key} is {value}, which no model has")
        return default if value is None else value

    def _bounded(self, key: str, least: int, most: int) -> int:
        value = self._number(key, 0)
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
