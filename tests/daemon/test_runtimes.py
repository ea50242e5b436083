"""Every runtime end to end, through the installed daemon, on the same built-in model in its own format."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import pilotlight
from serving import Daemon, serving, text_of, until

BUILTIN = Path(pilotlight.__file__).with_name("builtin")

MODELS = {"pilot": "llamacpp", "pilot-onnx": "onnx", "pilot-mlx": "mlx"}

QUESTION = [{"role": "user", "content": "What can you do?"}]

ENDLESS = {"ignore_eos": True, "max_tokens": 1900}

Serve = Callable[..., Daemon]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One that serves all."""
    with serving(tmp_path_factory.mktemp("runtimes"), "--log-level", "debug") as daemon:
        yield daemon


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """Each in turn."""
    name: str = request.param
    return name


def answer_of(response: Any) -> str:
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def test_the_runtime_is_found_by_the_path(daemon: Daemon, model: str) -> None:
    """Nobody named it; what it can do is told before it is loaded."""
    told = daemon.model(model)
    assert told["runtime"] == MODELS[model]
    assert {"temperature", "seed", "logit_bias"} <= set(told["capabilities"]["sampling"])


def test_a_stream_and_a_whole_answer_say_the_same(daemon: Daemon, model: str) -> None:
    """And end by themselves, in a sentence."""
    with daemon.stream(model, messages=QUESTION) as stream:
        *rest, last = stream
    assert last == {"done": True}
    assert rest[-1]["choices"][0]["finish_reason"] == "stop"
    text = text_of(iter(rest))
    assert text.startswith("I can")
    assert answer_of(daemon.post(model, messages=QUESTION)) == text


def test_a_stop_string_ends_the_answer(daemon: Daemon, model: str) -> None:
    """It is not part of it."""
    answer = daemon.post(model, messages=QUESTION, stop=["can", "?"]).json()
    assert answer["choices"][0] == answer["choices"][0] | {"finish_reason": "stop"}
    assert answer["choices"][0]["message"]["content"] == "I "


def test_a_seed_fixes_what_is_drawn(daemon: Daemon, model: str) -> None:
    """With nothing reused and nobody beside it."""
    asked = {"prompt": "one two", "cache_prompt": False, "max_tokens": 20}
    asked |= {"temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0}
    texts = [
        daemon.post(model, path="completions", seed=seed, **asked).json()["choices"][0]["text"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_the_second_turn_costs_only_its_new_tokens(daemon: Daemon, model: str) -> None:
    """Usage says how many were reused."""
    turns = [{"role": "user", "content": f"My name is Anna. I use {model}."}]
    first = daemon.post(model, messages=turns)
    turns += [{"role": "assistant", "content": answer_of(first)}, {"role": "user", "content": "Thanks!"}]
    used, reused = first.json()["usage"], daemon.post(model, messages=turns, max_tokens=3).json()["usage"]
    assert reused["completion_tokens"] == 3
    assert reused["prompt_tokens_details"]["cached_tokens"] >= used["total_tokens"] - 1


def test_many_streams_run_side_by_side(daemon: Daemon, model: str) -> None:
    """Each gets all of its own."""

    def ask(number: int) -> int:
        asked = {"prompt": f"{number} is", "path": "completions", "ignore_eos": True, "max_tokens": 50}
        tokens: int = daemon.post(model, **asked).json()["usage"]["completion_tokens"]
        return tokens

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(12))) == [50] * 12
    assert daemon.is_idle(model)


def test_who_leaves_an_answer_is_not_computed_for(daemon: Daemon, model: str) -> None:
    """The worker counts nothing left."""
    with daemon.stream(model, messages=QUESTION, **ENDLESS) as stream:
        next(stream)
    assert daemon.faults(model) == []


def test_who_leaves_while_the_prompt_is_read_is_not_computed_for(daemon: Daemon, model: str) -> None:
    """The stream begins when the worker has admitted the request, before it computes any of it."""
    assert daemon.post(model, max_tokens=1).status_code == 200
    long = [{"role": "user", "content": "word " * 1500}]
    with daemon.stream(model, messages=long, cache_prompt=False, ignore_eos=True, max_tokens=400):
        assert daemon.model(model)["active"]
    assert daemon.faults(model) == []


def test_what_the_model_cannot_do_is_refused(daemon: Daemon, model: str) -> None:
    """By the worker, in OpenAI's shape."""
    error = daemon.post(model, messages=[{"role": "user", "content": "word " * 3000}]).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


def test_a_killed_worker_ends_its_stream_and_is_replaced(serve: Serve, model: str) -> None:
    """Its memory is given back, and no process is left."""
    daemon = serve()
    with daemon.stream(model, messages=QUESTION, **ENDLESS) as stream:
        next(stream)
        worker = daemon.worker(model)
        worker.kill()
        *_, last = stream
    assert (last["error"]["code"], last["error"]["source"]) == ("worker_failed", "worker")
    assert "SIGKILL" in last["error"]["message"]
    until(lambda: not psutil.pid_exists(worker.pid))
    assert daemon.post(model, max_tokens=2).status_code == 200
    assert daemon.worker(model).pid != worker.pid


@pytest.mark.parametrize(
    ("model", "weights", "reason"),
    [
        ("pilot-onnx", "model.onnx.data", "damaged: onnxruntime cannot load"),
        ("pilot-mlx", "model.safetensors", "model.safetensors cannot be read"),
    ],
)
def test_a_damaged_folder_is_an_error_for_who_asks(
    serve: Serve, tmp_path: Path, model: str, weights: str, reason: str
) -> None:
    """Others are served as before."""
    damaged = Path(shutil.copytree(BUILTIN / model, tmp_path / "damaged"))
    (damaged / weights).write_bytes(b"")
    daemon = serve("--model", str(damaged))
    error = daemon.post("damaged").json()["error"]
    assert error["code"] == "worker_failed"
    assert reason in error["message"]
    assert daemon.post(model, max_tokens=1).status_code == 200
