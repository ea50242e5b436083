"""Opens exported graphs for `stepping.RowRuntime`."""

from collections.abc import Callable
from pathlib import Path

from pilotlight.runtimes.folder import Folder
from pilotlight.runtimes.limits import DEFAULT_CONTEXT, num_cores
from pilotlight.runtimes.onnx.export import Export
from pilotlight.runtimes.onnx.native import Graph, import_onnxruntime
from pilotlight.runtimes.opened import Opened
from pilotlight.worker.protocol import Load


def open_model(load: Load, progress: Callable[[float], None]) -> Opened:
    """A folder of ONNX Runtime GenAI. Raises `LoadError`."""
    path = Path(load.path)
    export = Export.read(path)
    folder = Folder(path, num_vocab=export.num_vocab, end_tokens=export.end_tokens)
    library = import_onnxruntime()
    progress(0.1)
    threads = load.threads or num_cores()
    graph = Graph(library, export, threads, load.provider)
    # Beyond what it was trained for the graph has no positions to look up.
    context = min(load.context or DEFAULT_CONTEXT, export.context_trained)
    variant = graph.choose_rope(context)
    progress(0.9)
    return Opened(
        decoder=graph,
        vocabulary=folder,
        template=folder.template(load.chat_template),
        context=context,
        context_trained=export.context_trained,
        threads=threads,
        version=library.__version__,
        description=f"{export.kind} on {graph.provider}",
        make_sampler=folder.make_sampler,
        bytes_model=sum(file.stat().st_size for file in path.glob(f"{export.graph.name}*")),
        variant=variant,
    )
