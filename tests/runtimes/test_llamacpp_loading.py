"""How llama.cpp loads a model: mapped or read, on a GPU or not."""

import gc
from pathlib import Path

import gguf
import pytest
from speaking import Bench, generate

from gguf_factory import write_tiny_gguf
from pilotlight.core import Loading, Model
from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.llamacpp.library import import_llama
from pilotlight.runtimes.llamacpp.native import Llama
from pilotlight.worker.handle import Worker


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("mode", "mmap", "is_mapped"),
    [("full", None, False), ("full", True, True), ("plain", None, True), ("plain", False, False)],
)
async def test_a_file_is_mapped_or_read(
    tiny_gguf: Path, mode: str, mmap: bool | None, is_mapped: bool
) -> None:
    """As the settings say, or if they don't, the mode."""
    worker = await Worker.spawn(Model("tiny", tiny_gguf, loading=Loading(mmap=mmap)))
    try:
        await worker.load(mode, lambda _: None, 20)
        is_in_maps = _is_mapped(worker.pid, tiny_gguf)
    finally:
        await worker.stop()
    assert is_in_maps is is_mapped


def _is_mapped(pid: int, file: Path) -> bool:
    return str(file.resolve()) in Path(f"/proc/{pid}/maps").read_text()


def test_a_model_for_vectors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens see those that follow: llama.cpp ends the process at a prompt that it divides."""
    add_name = gguf.GGUFWriter.add_name

    def write(writer: gguf.GGUFWriter, name: str) -> None:
        add_name(writer, name)
        writer.add_causal_attention(False)

    monkeypatch.setattr(gguf.GGUFWriter, "add_name", write)
    with pytest.raises(LoadError, match="this is no text generation model: each of its tokens sees"):
        Bench("llamacpp", write_tiny_gguf(tmp_path / "vectors.gguf"))


def test_what_llama_cpp_logs_to_outlives_a_load_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no other place: whatever is logged next, as of a context, would be said into freed memory."""
    heard: list[object] = []
    other = Bench("llamacpp", write_tiny_gguf(tmp_path / "other.gguf"))
    broken = write_tiny_gguf(tmp_path / "broken.gguf")
    broken.write_bytes(broken.read_bytes()[:-5000])
    with monkeypatch.context() as patch:
        patch.setattr(Llama, "_on_log", lambda self, *said: heard.append(said))
        with pytest.raises(LoadError):
            Bench("llamacpp", broken)
    gc.collect()
    heard.clear()
    other.answers([generate([token] * 200, max_tokens=1) for token in (5, 6, 7, 8)])
    assert heard


def test_layers_can_be_kept_from_a_gpu(tiny_gguf: Path) -> None:
    """On a machine without one this is the same as ever."""
    bench = Bench("llamacpp", tiny_gguf, loading=Loading(gpu_layers=0))
    assert bench.answer(generate("you", max_tokens=3)).end.completion_tokens == 3


@pytest.mark.skipif(import_llama().llama_supports_gpu_offload(), reason="there is a GPU")
def test_layers_for_a_gpu_that_is_not_there_are_refused(tiny_gguf: Path) -> None:
    """Computed on the CPU, they would be slower than whoever asked expects."""
    with pytest.raises(
        LoadError, match=r"gpu_layers is 7, and this build of llama\.cpp computes on the CPU only"
    ):
        Bench("llamacpp", tiny_gguf, loading=Loading(gpu_layers=7))
