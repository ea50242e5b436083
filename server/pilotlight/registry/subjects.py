"""What `fit` judges: a model's file or folder, or only the header of one, as a `Subject`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from pilotlight.core import Model
from pilotlight.registry.cost import Estimate, Layout, estimate
from pilotlight.registry.costs import layout
from pilotlight.registry.fit import Subject
from pilotlight.registry.folders import FolderShape, bits_of, estimate_folder
from pilotlight.registry.formats import MARKS, projector_of
from pilotlight.registry.gguf import Header, read_header, read_shards
from pilotlight.registry.gpu import computing
from pilotlight.registry.reader import opened
from pilotlight.registry.shape import Shape
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.runtimes.kv_types import AUTO, BLOCKS
from pilotlight.runtimes.limits import DEFAULT_PARALLEL
from pilotlight.runtimes.offload import refusal

IN_8_BITS = "q8_0"


def subject(model: Model, mode: str) -> Subject:
    """The model as a worker would load it in that mode. Raises `HeaderError` and `OSError`."""
    if model.runtime in MARKS:
        return _of_folder(model)
    found = of_header(model, mode, _header(model.path))
    return replace(found, projector=projector_of(model.path))


def of_header(model: Model, mode: str, header: Header) -> Subject:
    """A GGUF model of which there may be no more than this. Raises `HeaderError`."""
    found = _of_shape(Shape.of(header), model, mode)
    kinds = Counter[str]()
    for tensor in header.tensors:
        kinds[tensor.kind] += tensor.num_bytes
    common = f", mostly {kinds.most_common(1)[0][0]}" if kinds else ""
    return replace(found, kind=found.kind + common, num_weights=header.num_weights)


def of_files(sizes: Mapping[str, int], header: Header, mode: str) -> Iterator[Subject]:
    """Files of one model that differ in their quantization, by their sizes and the header of one of them."""
    shape = Shape.of(header)
    bytes_left_out = header.bytes_weights - shape.bytes_weights
    for file, size in sizes.items():
        num_bytes = max(0, size - header.data_start)
        num_bytes -= num_bytes * bytes_left_out // max(1, header.bytes_weights)
        active, *places = (
            part * num_bytes // max(1, shape.bytes_weights)
            for part in (shape.bytes_active, *shape.bytes_by_place)
        )
        one = replace(
            shape,
            bytes_weights=num_bytes,
            bytes_active=active,
            matrices={},
            bytes_by_place=tuple(places),
        )
        yield _of_shape(one, Model(file, Path(file)), mode)


def _of_shape(shape: Shape, model: Model, mode: str) -> Subject:
    in_8_bits = replace(model, loading=replace(model.loading, kv_cache_type=IN_8_BITS))
    is_whole = shape.head_width % BLOCKS[IN_8_BITS] == 0
    devices, asked = computing(model), model.loading.gpu_layers
    can_save = is_whole and mode != "plain" and model.loading.kv_cache_type in (AUTO, "f16", "f32", "bf16")
    return Subject(
        name=model.name,
        kind=shape.architecture,
        num_weights=0,
        bytes_weights=shape.bytes_weights,
        bytes_active=shape.bytes_active,
        context_trained=shape.context_trained,
        at=_at(shape, layout(model, shape, mode, devices)),
        at_8_bits=_at(shape, layout(in_8_bits, shape, mode, devices)) if can_save else None,
        gpus=devices,
        refusal=refusal(asked) if asked > 0 and not devices else None,
    )


def _at(shape: Shape, plain: Layout) -> Callable[[int], Estimate]:
    return lambda context: estimate(shape, replace(plain, context=context))


def _header(path: Path) -> Header:
    """Of a whole file, with all its shards; of one that ends before its weights do, what there is."""
    with opened(path) as file:
        header = read_header(file)
    is_whole = path.stat().st_size >= header.bytes_file
    return read_shards(path, header) if is_whole else header


def _of_folder(model: Model) -> Subject:
    shape = FolderShape.of(model.path, model.runtime)
    parallel, kv = model.parallel or DEFAULT_PARALLEL, model.loading.kv_cache_type

    def at(kv_bits: int | None) -> Callable[[int], Estimate]:
        return lambda context: estimate_folder(shape, context=context, parallel=parallel, kv_bits=kv_bits)

    can_save = kv == AUTO and IN_8_BITS in CAPABILITIES[model.runtime].kv_cache_types
    return Subject(
        name=model.name,
        kind=f"{model.runtime} folder",
        num_weights=0,
        bytes_weights=shape.bytes_weights,
        bytes_active=shape.bytes_weights,
        context_trained=shape.context_trained,
        at=at(bits_of(kv)),
        at_8_bits=at(bits_of(IN_8_BITS)) if can_save else None,
    )
