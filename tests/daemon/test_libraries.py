"""Runtimes whose library is missing, broken or deadly on this machine: an error for their models only."""

from collections.abc import Callable
from pathlib import Path

import pytest

import pilotlight
from pilotlight.config import BUILTIN
from serving import Daemon, on_path

Serve = Callable[..., Daemon]

FOLDER = Path(pilotlight.__file__).with_name("builtin")

DEADLY = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"

LIBRARIES = [
    ("onnxruntime.__init__", "pilot-onnx", "pilot", "pilotlight[onnx]"),
    ("mlx.core", "pilot-mlx", "pilot", "pilotlight[mlx]"),
    ("llama_cpp.llama_cpp", "pilot", "pilot-onnx", "llama-cpp-python"),
]
"""The module that does the harm, a model it harms, one it does not, and what to install."""


@pytest.fixture(params=LIBRARIES, ids=lambda library: library[0].partition(".")[0])
def library(request: pytest.FixtureRequest) -> tuple[str, str, str, str]:
    """Each in turn."""
    found: tuple[str, str, str, str] = request.param
    return found


def error_of(daemon: Daemon, model: str) -> str:
    """What is said to who asks for it."""
    answer = daemon.post(model)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["source"]) == (501, "runtime_missing", "daemon")
    message: str = error["message"]
    return message


def test_an_import_that_crashes_costs_its_models(
    serve: Serve, tmp_path: Path, library: tuple[str, str, str, str]
) -> None:
    """In one try: every mode would import the same, and nothing is remembered against the file or a mode."""
    module, harmed, other, _ = library
    daemon = serve(environ=on_path(tmp_path / "path", **{module: DEADLY}))
    message = error_of(daemon, harmed)
    assert "importing its library crashed (SIGSEGV); `pilotlight doctor`" in message
    assert daemon.post(other, max_tokens=2).status_code == 200
    assert not (daemon.state_dir / "ladder.json").exists()


def test_a_broken_import_costs_its_models(
    serve: Serve, tmp_path: Path, library: tuple[str, str, str, str]
) -> None:
    """Its own words are told: a library it needs is not there, say."""
    module, harmed, _, _ = library
    broken = "raise ImportError('libgpu.so.1: cannot open shared object file')"
    daemon = serve(environ=on_path(tmp_path / "path", **{module: broken}))
    message = error_of(daemon, harmed)
    assert "cannot be imported: libgpu.so.1: cannot open" in message


def test_a_missing_library_costs_its_models(
    serve: Serve, tmp_path: Path, library: tuple[str, str, str, str]
) -> None:
    """Also of models that somebody configured."""
    module, harmed, _, install = library
    name = module.partition(".")[0]
    gone = on_path(tmp_path / "path", sitecustomize=f"import sys; sys.modules['{name}'] = None")
    daemon = serve("--model", str(FOLDER / BUILTIN[harmed]), environ=gone)
    message = error_of(daemon, harmed)
    assert f"{name} is not installed; pip install '{install}'" in message


def test_a_provider_that_is_not_there_is_told(serve: Serve) -> None:
    """With those that are; the CPU is one, and says so."""
    path = FOLDER / "pilot-onnx"
    models = "".join(
        f"[[model]]\nname = '{provider}'\npath = '{path}'\nprovider = '{provider}'\n"
        for provider in ("qnn", "cpu")
    )
    daemon = serve(models=models)
    error = daemon.post("qnn").json()["error"]
    assert error["code"] == "worker_failed"
    assert "qnn: onnxruntime has no execution provider qnn here; there is: cpu" in error["message"]
    assert daemon.post("cpu", max_tokens=1).status_code == 200
    assert daemon.model("cpu")["description"] == "llama on cpu"
    assert 'description="llama on cpu"' in daemon.log
