"""What a worker with a GGUF model will hold in memory: from the file's header and the settings to bytes.

Pure arithmetic. It follows what llama.cpp takes for weights, keys and values, recurrent state, its graph and
its output; the constants at the top are what the rest was measured to be on CPUs. For GPUs nothing ever was.
"""

from collections.abc import Container

from msgspec import Struct
from msgspec.structs import replace

from pilotlight.registry.gguf import KINDS
from pilotlight.registry.shape import Shape
from pilotlight.runtimes.limits import DEFAULT_CONTEXT, DEFAULT_PARALLEL
from pilotlight.runtimes.offload import num_staying

BLOCKS = {name: (block, num_bytes) for name, block, num_bytes in KINDS.values()}

MICROBATCH = 128
GPU_MICROBATCH = 512
WARM_UP_TOKENS = 16
"""As in `runtimes.llamacpp`, which the daemon does not import: a test holds them together."""

PROCESS_BYTES = 28_500_000
"""Python with numpy, a template engine and our own code, and llama.cpp's tables without any model."""

LIBRARY_BYTES = 24_000_000
"""Pages of the interpreter's and libraries' own files."""

BYTES_PER_WORD = 208
BYTES_PER_MERGE = 95
"""The tokenizer's tables, without the output buffer."""

BYTES_PER_LAYER = 100_000
"""Of a graph's nodes, in the tables of graph and scheduler."""

LATER_BYTES = 8 * 10**6
"""What a process at work takes for what has no size of its own: frames, texts, allocator."""

PAD_CELLS = 256


class Layout(Struct, frozen=True):
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
    gpu_layers: int = 0
    """That a GPU holds in memory of its own; the output counts as one. -1 for all."""
    outside: float = 1.0
    """Tokens outside the cells at most, in contexts: what is parked, half of one by itself, makes way for
    what is carried to new cells."""

    @property
    def first_cells(self) -> int:
        """It begins with the least for each sequence, or in all, and takes more up to the context."""
        return PAD_CELLS * (self.parallel if self.parallel * PAD_CELLS <= self.context else 1)


class Parts(Struct, frozen=True):
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
    device: int = 0
    """In a GPU's own memory; all the rest is in the machine's."""

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


class Estimate(Struct, frozen=True):
    """Bytes right after the load, and when the whole context is in use."""

    at_load: Parts
    at_most: Parts

    @property
    def most(self) -> int:
        """A short context in use can be less than what the load alone takes."""
        return max(self.at_load.total, self.at_most.total)


def estimate(shape: Shape, layout: Layout) -> Estimate:
    """What a worker with this model and layout holds."""
    if layout.gpu_layers:
        return _divided(shape, layout)
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
    own = shape.bytes_repacked(layout.repacked) if layout.mmap else weights
    tables = shape.num_vocab * BYTES_PER_WORD + shape.num_merges * BYTES_PER_MERGE
    return Parts(
        weights=layout.bytes_adapters + own + twice,
        mapped=shape.bytes_mapped(layout.repacked) if layout.mmap else 0,
        cells=cells,
        compute=compute,
        process=PROCESS_BYTES + tables + len(shape.layers) * BYTES_PER_LAYER + later,
        libraries=LIBRARY_BYTES,
    )


def _divided(shape: Shape, layout: Layout) -> Estimate:
    """A GPU's layers have weights, cells and graph there; what rests of sequences is here, of all layers."""
    here, there = shape.divided(num_staying(len(shape.layers), layout.gpu_layers))
    if not here.layers:
        here = replace(here, feed_forward=0, num_heads=0)  # its graph looks up, and makes masks
    found = estimate(here, replace(layout, gpu_layers=0))
    cells = found.at_most.cells + _outside_bytes(there, layout)

    def device(num_tokens: int, num_cells: int) -> int:
        graph = _graph_bytes(shape, layout, num_tokens, num_cells, layout.parallel)
        return there.bytes_weights + cell_bytes(there, layout, num_cells) + graph

    return Estimate(
        at_load=replace(found.at_load, device=device(WARM_UP_TOKENS, layout.first_cells)),
        at_most=replace(found.at_most, cells=cells, device=device(layout.microbatch, layout.context)),
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
