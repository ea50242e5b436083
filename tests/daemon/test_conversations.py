"""Conversations that outlive their worker, and the daemon: through HTTP, with the built-in models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import Daemon, echo, serving

Serve = Callable[..., Daemon]

Messages = list[dict[str, str]]

FIRST = [
    {"role": "user", "content": "My favorite color is blue. " + "Please remember it well, my friend. " * 6}
]

SECOND = {"role": "user", "content": "What's my favorite color?"}


def ask(daemon: Daemon, model: str, messages: Messages, **fields: Any) -> tuple[str, int]:
    """The answer, and how many tokens of the prompt were not computed."""
    answer = daemon.post(model, messages=messages, max_tokens=40, **fields).json()
    return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens_details"][
        "cached_tokens"
    ]


def turns(answer: str) -> Messages:
    """The conversation with its second question."""
    return [*FIRST, {"role": "assistant", "content": answer}, SECOND]


def unload(daemon: Daemon, model: str) -> None:
    daemon.admin("models/unload", model=model).raise_for_status()


def files(daemon: Daemon) -> list[Path]:
    folder = daemon.state_dir / "conversations"
    return sorted(folder.iterdir()) if folder.exists() else []


def conversations(daemon: Daemon, outcome: str) -> float:
    """What the metrics count."""
    lines = daemon.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith("pilotlight_conversations_total") and outcome in line
    )


@pytest.mark.parametrize("model", ["pilot", "pilot-onnx", "pilot-mlx"])
def test_a_conversation_goes_on_after_an_unload(serve: Serve, model: str) -> None:
    """As it would have without one: the same tokens are reused, and the answer is the same."""
    daemon = serve()
    answer, _ = ask(daemon, model, FIRST)
    unload(daemon, model)
    (file,) = files(daemon)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    broken, cached = ask(daemon, model, turns(answer))
    assert cached > 60
    assert daemon.model(model)["conversations"] == {"saved": 1, "restored": 1}
    assert (conversations(daemon, "saved"), conversations(daemon, "restored")) == (1, 1)
    assert (broken, "blue" in broken) == (ask(daemon, model, turns(answer), cache_prompt=False)[0], True)


def test_a_conversation_goes_on_after_a_restart(tmp_path: Path) -> None:
    """SIGTERM is a good end."""
    with serving(tmp_path) as daemon:
        answer, _ = ask(daemon, "pilot", FIRST)
        assert files(daemon) == []
    with serving(tmp_path) as daemon:
        broken, cached = ask(daemon, "pilot", turns(answer))
        assert cached > 60
        assert broken == ask(daemon, "pilot", turns(answer), cache_prompt=False)[0]


def test_it_is_saved_when_its_time_is_over(serve: Serve) -> None:
    """Which is at once, if the request says so."""
    daemon = serve()
    ask(daemon, "pilot", FIRST, keep_alive=0)
    unload(daemon, "pilot")
    assert len(files(daemon)) == 1


def test_a_damaged_file_is_a_miss(serve: Serve) -> None:
    """Whoever asks never hears of it."""
    daemon = serve()
    answer, _ = ask(daemon, "pilot", FIRST)
    unload(daemon, "pilot")
    (file,) = files(daemon)
    file.write_bytes(file.read_bytes()[:-1])
    text, cached = ask(daemon, "pilot", turns(answer))
    assert (cached, "blue" in text) == (0, True)


def test_a_request_can_leave_nothing(serve: Serve) -> None:
    """One that takes nothing from others either."""
    daemon = serve()
    ask(daemon, "pilot", FIRST, cache_prompt=False)
    unload(daemon, "pilot")
    assert files(daemon) == []


def test_one_setting_writes_nothing_and_deletes_what_is_there(tmp_path: Path) -> None:
    """At the next start."""
    with serving(tmp_path) as daemon:
        ask(daemon, "pilot", FIRST)
    assert len(files(daemon)) == 1
    with serving(tmp_path, models="[memory]\nconversations = 0") as daemon:
        ask(daemon, "pilot", FIRST)
        unload(daemon, "pilot")
        assert "pilotlight_conversation_bytes 0.0" in daemon.get("/metrics").text
    assert files(daemon) == []


def test_what_is_too_old_goes_at_the_start(tmp_path: Path) -> None:
    """Also where nobody loads a model any more."""
    with serving(tmp_path) as daemon:
        ask(daemon, "pilot", FIRST)
    (file,) = files(daemon)
    with serving(tmp_path, models='[memory]\nconversations_for = "1ms"') as daemon:
        daemon.get("/health")
    assert not file.exists()


def test_a_model_without_conversations_costs_no_time(serve: Serve, tmp_path: Path) -> None:
    """Its worker ends as soon as it is told."""
    daemon = serve(models=echo(tmp_path))
    daemon.post("echo")
    unload(daemon, "echo")
    assert daemon.model("echo")["conversations"] == {"saved": 0, "restored": 0}
    assert files(daemon) == []


def test_what_was_said_is_in_no_log(serve: Serve) -> None:
    """Files hold it, and nothing else."""
    daemon = serve("--log-level", "debug")
    answer, _ = ask(daemon, "pilot", FIRST)
    unload(daemon, "pilot")
    ask(daemon, "pilot", turns(answer))
    assert "conversations saved" in daemon.log
    assert "favorite color" not in daemon.log
