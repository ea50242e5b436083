"""curl against a real daemon, as people try things out."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import Daemon, chat, echo

Curl = Callable[..., subprocess.Popen[str]]

JSON = ("-H", "Content-Type: application/json")


def command(daemon: Daemon, *arguments: str, path: str = "/v1/chat/completions") -> list[str]:
    return ["curl", "--silent", "--show-error", "--max-time", "20", *arguments, daemon.url + path]


def curl(daemon: Daemon, *arguments: str, path: str = "/v1/chat/completions") -> str:
    """What it prints."""
    done = subprocess.run(command(daemon, *arguments, path=path), capture_output=True, text=True, check=True)
    return done.stdout


def test_a_question_is_answered(served: Daemon) -> None:
    """JSON, as documented in the README."""
    answer = json.loads(curl(served, *JSON, "-d", json.dumps(chat("echo"))))
    assert answer["choices"][0]["message"]["content"] == "one two three "


def test_json_needs_no_header(served: Daemon) -> None:
    """curl calls everything a form; who types by hand is not sent back for that."""
    answer = json.loads(curl(served, "-d", json.dumps(chat("echo"))))
    assert answer["object"] == "chat.completion"


def test_a_stream_is_server_sent_events(served: Daemon) -> None:
    """`data:` lines with blank lines between, ended by `[DONE]`, under the right type."""
    body = json.dumps(chat("echo", stream=True))
    head, _, stream = curl(served, "-N", "-i", *JSON, "-d", body).partition("\n\n")
    assert "HTTP/1.1 200" in head
    assert "content-type: text/event-stream" in head.lower()
    *events, done, rest = stream.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert [json.loads(event.removeprefix("data: "))["object"] for event in events] == [
        "chat.completion.chunk"
    ] * len(events)


def test_words_are_printed_as_they_are_made(served: Daemon) -> None:
    """`-N` shows the first while the last is far away."""
    body = json.dumps(chat("slow", stream=True, max_tokens=100_000))
    with subprocess.Popen(
        command(served, "-N", *JSON, "-d", body), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("data: {")
        assert process.poll() is None
        process.kill()


def test_models_and_metrics_are_readable(served: Daemon) -> None:
    """A GET each."""
    assert json.loads(curl(served, path="/v1/models"))["object"] == "list"
    assert "pilotlight_requests_total" in curl(served, path="/metrics")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [('{"model": "ecko", "messages": []}', 400, "invalid_value"), ("{", 400, "invalid_value"),
     (json.dumps(chat("ecko")), 404, "model_not_found")],
    ids=["no messages", "no JSON", "no model"],
)  # fmt: skip
def test_an_error_is_a_status_and_a_sentence(served: Daemon, body: str, status: int, code: str) -> None:
    """Streamed or not, the body is one JSON object."""
    text, _, got = curl(served, "-N", "-w", "\n%{http_code}", *JSON, "-d", body).rpartition("\n")
    assert int(got) == status
    assert json.loads(text)["error"]["code"] == code


def test_head_and_options_are_answered(served: Daemon) -> None:
    """For load balancers and browsers."""
    assert "HTTP/1.1 200" in curl(served, "--head", path="/ready")
    preflight = ("-H", "Origin: http://localhost:3000", "-H", "Access-Control-Request-Method: POST")
    assert "HTTP/1.1 204" in curl(served, "-i", "-X", "OPTIONS", *preflight)


def test_who_is_refused_reads_why(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """And what to do about it: on a laptop whose battery is low."""
    battery = tmp_path / "machine/sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("capacity", "14")):
        (battery / name).write_text(text)
    large = echo(tmp_path, "large").replace("[[model]]", '[[model]]\nsmall = "echo"')
    models = "[policy.hysteresis]\nenter_after = 0\n" + large + echo(tmp_path)
    daemon = serve("--power-root", str(tmp_path / "machine"), models=models)
    said = curl(daemon, *JSON, "--include", "-H", "X-Policy: strict", "-d", json.dumps(chat("large")))
    assert "on battery at 14 %: refused, because with X-Policy: strict nothing less will do" in said
    assert "plug in, or send X-Policy-Override: 1" in said
    assert " 503 " in said.splitlines()[0] and "x-should-retry: false" in said
    assert json.loads(curl(daemon, *JSON, "-d", json.dumps(chat("large"))))["model"] == "echo"
