"""Batches in a real daemon: killed in the middle, stopped, short of disk, and over HTTP."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import END_S, FAST, NO_BYTECODE, PROGRAM, Daemon, echo, until

Serve = Callable[..., Daemon]

CHAT = "/v1/chat/completions"

FILES_OF = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d)); "
"""A daemon whose files cannot grow beyond that: what a full disk is to it."""


def line(custom_id: str, model: str, **fields: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": f"Say {custom_id}"}], **fields}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}) + "\n"


def upload(daemon: Daemon, content: bytes, **fields: str) -> httpx.Response:
    form = {"purpose": "batch"} | fields
    return httpx.post(
        f"{daemon.url}/v1/files", data=form, files={"file": ("in.jsonl", content)}, timeout=END_S
    )


def submit(daemon: Daemon, text: str, **fields: Any) -> str:
    file_id = upload(daemon, text.encode()).json()["id"]
    order = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"} | fields
    response = httpx.post(f"{daemon.url}/v1/batches", json=order, timeout=END_S)
    assert response.status_code == 200, response.text
    created: str = response.json()["id"]
    return created


def batch(daemon: Daemon, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.get(f"/v1/batches/{batch_id}").json()
    return found


def over(daemon: Daemon, batch_id: str, status: str = "completed") -> dict[str, Any]:
    """The batch once it is that."""

    def is_over() -> bool:
        known = batch(daemon, batch_id)
        assert known["status"] != "failed", known["errors"]
        return known["status"] == status  # type: ignore[no-any-return]

    until(is_over, within_s=50)
    return batch(daemon, batch_id)


def answers(daemon: Daemon, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(text) for text in daemon.get(f"/v1/files/{file_id}/content").text.splitlines()]


def answered(daemon: Daemon, batch_id: str) -> int:
    counts = batch(daemon, batch_id)["request_counts"]
    return counts["completed"] + counts["failed"]  # type: ignore[no-any-return]


def test_a_batch_waits_while_the_machine_is_on_battery(serve: Serve, tmp_path: Path) -> None:
    """And says so; not one line runs, and plugged in, all do."""
    supply = tmp_path / "machine" / "sys/class/power_supply" / "BAT0"
    supply.mkdir(parents=True)
    (supply / "type").write_text("Battery")
    (supply / "status").write_text("Discharging")
    models = "[policy.hysteresis]\nleave_after = 0\n" + echo(tmp_path)
    daemon = serve("--power-root", str(tmp_path / "machine"), models=models, program=FAST)
    waiting = submit(daemon, line("a", "echo") + line("b", "echo"))
    policy = until(lambda: batch(daemon, waiting).get("policy"))
    assert policy["reason"] == "on battery: batch requests wait; plug in"
    assert (answered(daemon, waiting), daemon.model("echo")["state"]) == (0, "stopped")
    (supply / "status").write_text("Charging")
    done = over(daemon, waiting)
    assert (done["request_counts"]["completed"], "policy" in done) == (2, False)


def kill_at(daemon: Daemon, batch_id: str, num_answered: int) -> None:
    """When so many lines have their answer."""
    until(lambda: answered(daemon, batch_id) >= num_answered, within_s=50)
    daemon.kill()


@pytest.mark.timeout(180)  # three daemons and as many loads
def test_killed_in_the_middle_every_line_is_answered_once(serve: Serve) -> None:
    """Twice, by the built-in model; a line that cannot be answered is an error once."""
    texts = [line(f"r{number}", "pilot", max_tokens=4) for number in range(60)]
    texts[30] = line("r30", "pilot", temperature=99)
    daemon = serve()
    batch_id = submit(daemon, "".join(texts))
    for share in (1, 25):
        kill_at(daemon, batch_id, share)
        daemon = serve()
    done = over(daemon, batch_id)
    good, bad = (answers(daemon, done[f"{kind}_file_id"]) for kind in ("output", "error"))
    assert sorted(answer["custom_id"] for answer in good) == sorted({f"r{n}" for n in range(60)} - {"r30"})
    assert [(one["custom_id"], one["response"]["status_code"]) for one in bad] == [("r30", 400)]
    assert done["request_counts"] == {"total": 60, "completed": 59, "failed": 1}
    assert done["usage"]["output_tokens"] == sum(
        answer["response"]["body"]["usage"]["completion_tokens"] for answer in good
    )


def test_stopped_in_the_middle_it_goes_on(serve: Serve, tmp_path: Path) -> None:
    """A long line does not hold up the stop: it runs again."""
    daemon = serve(models=echo(tmp_path, "slow", tokens_per_s=20) + echo(tmp_path))
    batch_id = submit(daemon, line("fast", "echo") + line("slow", "slow", max_tokens=2000, ignore_eos=True))
    until(lambda: daemon.model("slow")["active"])
    daemon.stop()
    daemon = serve(models=echo(tmp_path, "slow") + echo(tmp_path))
    done = over(daemon, batch_id)
    assert {one["custom_id"] for one in answers(daemon, done["output_file_id"])} == {"fast", "slow"}


def test_a_line_that_kills_its_worker_is_an_error(serve: Serve, tmp_path: Path) -> None:
    """The others are answered."""
    models = echo(tmp_path) + echo(tmp_path, "dying", die_after_tokens=2)
    daemon = serve(models=models)
    batch_id = submit(daemon, line("a", "echo") + line("b", "dying") + line("c", "echo"))
    done = over(daemon, batch_id)
    (error,) = answers(daemon, done["error_file_id"])
    assert (error["custom_id"], error["response"]["status_code"]) == ("b", 500)
    assert error["response"]["body"]["error"]["code"] == "worker_failed"
    assert len(answers(daemon, done["output_file_id"])) == 2


def test_no_prompt_and_no_answer_is_logged(serve: Serve, tmp_path: Path) -> None:
    """Not even with everything logged, of good lines and bad ones."""
    daemon = serve("--log-level", "debug", models=echo(tmp_path))
    over(daemon, submit(daemon, line("xyzzy", "echo") + line("plugh", "echo", temperature="xyzzy")))
    wrong = submit(daemon, '{"xyzzy": "plugh"}')
    until(lambda: batch(daemon, wrong)["status"] == "failed")
    assert "batch over" in daemon.log
    assert "xyzzy" not in daemon.log
    assert "plugh" not in daemon.log


def test_an_upload_that_does_not_fit_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    """The error says why; a smaller one fits."""
    daemon = serve(program=FILES_OF % (65536, 65536) + PROGRAM, environ=NO_BYTECODE, models=echo(tmp_path))
    response = upload(daemon, b"x" * 2_000_000)
    assert (response.status_code, response.json()["error"]["code"]) == (507, "disk_full")
    assert "File too large" in response.json()["error"]["message"]
    assert daemon.get("/v1/files").json()["data"] == []
    assert list((daemon.state_dir / "files").iterdir()) == []
    assert upload(daemon, b"{}").status_code == 200


def test_answers_that_do_not_fit_wait_for_room(serve: Serve, tmp_path: Path) -> None:
    """A notice says so; what is written is whole, and the next daemon has room."""
    models = echo(tmp_path)
    daemon = serve(program=FILES_OF % (8192, 8192) + PROGRAM, environ=NO_BYTECODE, models=models)
    batch_id = submit(daemon, "".join(line(f"r{number}", "echo") for number in range(40)))
    until(lambda: "batch_not_written" in daemon.notices())
    assert 0 < answered(daemon, batch_id) < 40
    daemon.stop()
    daemon = serve(models=models)
    done = over(daemon, batch_id)
    found = [one["custom_id"] for one in answers(daemon, done["output_file_id"])]
    assert sorted(found) == sorted(f"r{number}" for number in range(40))


def test_a_second_daemon_leaves_them_alone(serve: Serve, tmp_path: Path) -> None:
    """It says who has them, in an error and in a notice."""
    first = serve(models=echo(tmp_path, "slow", tokens_per_s=5))
    batch_id = submit(first, line("a", "slow", max_tokens=100_000, ignore_eos=True))
    second = serve(models=echo(tmp_path))
    response = second.get(f"/v1/batches/{batch_id}")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "conflict")
    assert "batches_elsewhere" in second.notices()
    cancelled = httpx.post(f"{first.url}/v1/batches/{batch_id}/cancel", timeout=END_S)
    assert cancelled.json()["status"] == "cancelling"
    done = over(first, batch_id, "cancelled")
    assert [one["error"]["code"] for one in answers(first, done["error_file_id"])] == ["batch_cancelled"]


def test_people_are_not_kept_waiting(serve: Serve, tmp_path: Path) -> None:
    """While a batch has more lines than the worker has places, a request gets one at once."""
    daemon = serve(models=echo(tmp_path, parallel=2, tokens_per_s=20))
    text = "".join(line(f"r{n}", "echo", max_tokens=100_000, ignore_eos=True) for n in range(8))
    batch_id = submit(daemon, line("first", "echo") + text)
    until(lambda: daemon.model("echo")["active"] == 2)
    assert daemon.post("echo").status_code == 200
    assert daemon.model("echo")["queued"] == 0
    httpx.post(f"{daemon.url}/v1/batches/{batch_id}/cancel", timeout=END_S)
    over(daemon, batch_id, "cancelled")
    until(lambda: daemon.model("echo")["active"] == 0)


@pytest.mark.parametrize(
    "path",
    ["files/..%2f..%2fdaemon.json", "files/%2e%2e", "files/a/b/content", "files/" + "x" * 5000,
     "batches/..%2flock", "batches/%00"],
    ids=["up", "dots", "deep", "long", "lock", "nul"],
)  # fmt: skip
def test_hostile_ids_lead_nowhere(shared: Daemon, path: str) -> None:
    """404, whatever they name."""
    assert shared.get(f"/v1/{path}").status_code == 404
    assert httpx.delete(f"{shared.url}/v1/{path}", timeout=END_S).status_code == 404


def test_a_daemon_without_batches_has_nothing_of_them() -> None:
    """Not even in its memory: they are imported with their first use."""
    program = "import sys, pilotlight.daemon; print([name for name in sys.modules if 'batch' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_metrics_count_batches_and_lines(serve: Serve, tmp_path: Path) -> None:
    """By status and by outcome."""
    daemon = serve(models=echo(tmp_path))
    over(daemon, submit(daemon, line("a", "echo") + line("b", "echo", n=99)))
    text = daemon.get("/metrics").text
    assert 'pilotlight_batches{status="completed"} 1.0' in text
    assert 'pilotlight_batch_lines_total{outcome="completed"} 1.0' in text
    assert 'pilotlight_batch_lines_total{outcome="failed"} 1.0' in text
