"""Opens GGUF files for `stepping.RowRuntime`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from pilotlight.chat.template import ChatTemplate
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.kv_types import KvTypes
from pilotlight.runtimes.limits import default_context, num_cores
from pilotlight.runtimes.llamacpp.decoder import LlamaDecoder
from pilotlight.runtimes.llamacpp.library import library_build, library_version
from pilotlight.runtimes.llamacpp.native import MODES, Llama
from pilotlight.runtimes.llamacpp.sampler import Sampler
from pilotlight.runtimes.opened import Opened
from pilotlight.worker.protocol import Load


def open_model(load: Load, progress: Callable[[float], None]) -> Opened:
    """A GGUF file. Raises `LoadError`."""
    path = Path(load.path)
    _check_file(path)
    mode = MODES[load.mode]
    if load.loading.mmap is not None:
        mode = replace(mode, mmap=load.loading.mmap)
    llama = Llama(path, mode, load, progress)
    threads = load.threads or num_cores()
    return Opened(
        decoder=LlamaDecoder(llama, threads, KvTypes.parse(load.loading.kv_cache_type) or KvTypes()),
        vocabulary=llama.vocabulary,
        template=_template(llama, load.chat_template),
        # More than it was trained for is its owner's choice: positions are computed, not looked up.
        context=load.context or default_context(llama.context_trained),
        context_trained=llama.context_trained,
        threads=threads,
        version=library_version(),
        variant=f"{library_build(llama.library)} {llama.rope_variant}",
        description=llama.description,
        bytes_model=llama.bytes_model,
        num_parameters=llama.num_parameters,
        make_sampler=partial(Sampler, llama),
    )


def _check_file(path: Path) -> None:
    """Refuse what is no GGUF before native code sees it."""
    if not path.exists():
        raise LoadError(f"{path} does not exist")
    if not path.is_file():
        raise LoadError(
            f"{path} is not a file; a model is a GGUF file, or a folder with a genai_config.json (ONNX) or "
            "a config.json (MLX)"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise LoadError(f"{path} is not a GGUF file: {size} bytes, starting with {magic!r}")


def _template(llama: Llama, override: str | None) -> ChatTemplate | None:
    source = override or llama.chat_template
    if source is None:
        return None
    special = llama.vocabulary.special_text
    return ChatTemplate(source, bos=special("bos"), eos=special("eos"))
