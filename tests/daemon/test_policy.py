"""A daemon on a laptop that is a folder: the plug is pulled, and clients see what that means."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serving import FAST, Daemon, chat, echo, until

SUDDENLY = "[policy.hysteresis]\nenter_after = 0\nleave_after = 0\n"

MESSAGES: Any = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    root = tmp_path / "machine"
    write(
        root, AC_type="Mains", AC_online="1", BAT0_type="Battery", BAT0_status="Charging", BAT0_capacity="14"
    )
    return root


def write(root: Path, **files: str) -> None:
    """Of the adapter and the battery: `BAT0_status="Full"`."""
    for name, text in files.items():
        device, _, file = name.partition("_")
        folder = root / "sys/class/power_supply" / device
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text + "\n")


def unplug(root: Path, daemon: Daemon) -> None:
    """And wait until the daemon has seen it."""
    write(root, AC_online="0", BAT0_status="Discharging")
    assert until(lambda: "low battery" in in_force(daemon))


def in_force(daemon: Daemon) -> list[str]:
    return [rule["name"] for rule in daemon.get("/admin/policy").json()["rules"] if rule["is_in_force"]]


@pytest.fixture
def daemon(serve: Callable[..., Daemon], tmp_path: Path, laptop: Path) -> Daemon:
    large = echo(tmp_path, "large").replace("[[model]]", '[[model]]\nsmall = "little"')
    models = SUDDENLY + large + echo(tmp_path, "little")
    return serve("--power-root", str(laptop), models=models, program=FAST)


def test_unplugged_at_14_percent_the_small_model_answers(daemon: Daemon, laptop: Path) -> None:
    """openai-python's user sees its name and the reason; plugged in it was the large one."""
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        plugged = client.chat.completions.create(model="large", messages=MESSAGES)
        unplug(laptop, daemon)
        answer = client.chat.completions.create(model="large", messages=MESSAGES)
        streamed = list(client.chat.completions.create(model="large", messages=MESSAGES, stream=True))
        with pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(
                model="large", messages=MESSAGES, extra_headers={"X-Policy": "strict"}
            )
    assert (plugged.model, plugged.model_extra) == ("large", {})
    for said in (answer, streamed[-1]):
        assert said.model == "little"
        assert said.model_extra is not None
        assert "on battery at 14 %: little answers instead of large" in said.model_extra["policy"]["reason"]
    assert (refused.value.status_code, refused.value.code) == (503, "battery_floor")
    assert "on battery at 14 %" in refused.value.message


def test_what_waits_begins_when_the_plug_is_back(
    serve: Callable[..., Daemon], tmp_path: Path, laptop: Path
) -> None:
    """A background stream says what it waits for meanwhile."""
    write(laptop, AC_online="0", BAT0_status="Discharging", BAT0_capacity="80")
    daemon = serve("--power-root", str(laptop), models=SUDDENLY + echo(tmp_path), program=FAST)
    body, headers = chat("echo", stream=True), {"X-Request-Class": "background"}
    url = f"{daemon.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=20) as response:
        lines = response.iter_lines()
        assert "on battery at 80 %: background requests wait" in next(lines)
        write(laptop, AC_online="1", BAT0_status="Charging")
        assert "data: [DONE]" in list(lines)


def test_what_runs_in_the_background_rests_on_battery(
    serve: Callable[..., Daemon], tmp_path: Path, laptop: Path
) -> None:
    """In place; it says why, and goes on where it was when the plug is back."""
    models = "[server]\nkeepalive_s = 0.05\n" + SUDDENLY + echo(tmp_path, tokens_per_s=20)
    daemon = serve("--power-root", str(laptop), models=models, program=FAST)
    long = [{"role": "user", "content": "one " * 40}]
    body = chat("echo", stream=True, messages=long, service_tier="flex")
    with httpx.stream("POST", f"{daemon.url}/v1/chat/completions", json=body, timeout=20) as response:
        lines = response.iter_lines()
        assert any("one" in line for line in lines)
        write(laptop, AC_online="0", BAT0_status="Discharging", BAT0_capacity="80")
        assert any(": resting: on battery at 80 %: background requests wait" in line for line in lines)
        assert daemon.model("echo")["paused"] == 1
        write(laptop, AC_online="1", BAT0_status="Charging")
        assert "data: [DONE]" in list(lines)


def test_what_rests_for_too_long_ends(serve: Callable[..., Daemon], tmp_path: Path, laptop: Path) -> None:
    """With an error that says so, after what has come of it."""
    rule = "[[rule]]\nname = 'on battery'\nwhen = { supply = 'battery' }\n"
    rule += "background = { admit = 'defer', max_wait = '1s' }\nbatch = { admit = 'defer' }\n"
    models = SUDDENLY + rule + echo(tmp_path, tokens_per_s=20)
    daemon = serve("--power-root", str(laptop), models=models, program=FAST)
    with daemon.stream("echo", max_tokens=100_000, service_tier="flex") as stream:
        assert next(stream)
        write(laptop, AC_online="0", BAT0_status="Discharging", BAT0_capacity="80")
        error = list(stream)[-1]["error"]
    assert (error["type"], error["code"]) == ("policy", "background_blocked")
    assert "and may be for at most 1 s: on battery at 80 %" in error["message"]
    assert until(lambda: daemon.model("echo")["active"] == 0)


SPARE = (
    SUDDENLY
    + """
[defaults]
threads = 2
[[rule]]
name = "spare"
when = { supply = "battery" }
interactive = { threads = 1 }
"""
)


def test_threads_change_in_the_middle_of_an_answer(
    serve: Callable[..., Daemon], tmp_path: Path, laptop: Path
) -> None:
    """And are as many as before when the plug is back."""
    models = SPARE + echo(tmp_path, tokens_per_s=20)
    daemon = serve("--power-root", str(laptop), "--threads", "2", models=models, program=FAST)
    with daemon.stream("echo", max_tokens=10_000) as stream:
        assert next(stream)
        assert daemon.model("echo")["threads"] == 2
        write(laptop, AC_online="0", BAT0_status="Discharging", BAT0_capacity="80")
        assert until(lambda: daemon.model("echo")["threads"] == 1)
        assert daemon.post("echo").headers["x-policy-action"] == "keep_alive=300;threads=1, efficient"
        write(laptop, AC_online="1", BAT0_status="Charging")
        assert until(lambda: daemon.model("echo")["threads"] == 2)
        assert next(stream)


def test_enough_threads_are_measured_once(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """At the first load, and kept for the next daemon."""
    models = echo(tmp_path, enough_threads=2)
    for _ in range(2):
        daemon = serve("--power-root", str(tmp_path), "--threads", "efficient", models=models)
        assert daemon.post("echo").status_code == 200
        assert until(lambda daemon=daemon: daemon.model("echo")["threads"] == 2)
        assert daemon.model("echo")["enough_threads"] == 2
        daemon.stop()
    assert daemon.log.count('event="threads measured"') == 1


def test_on_battery_no_more_threads_compute_than_are_enough(
    serve: Callable[..., Daemon], tmp_path: Path, laptop: Path
) -> None:
    """How many that are is found out when it is first of use, and nobody asks for a moment."""
    models = SUDDENLY + echo(tmp_path, enough_threads=2)
    daemon = serve("--power-root", str(laptop), models=models, program=FAST)
    assert daemon.post("echo").status_code == 200
    assert daemon.model("echo")["enough_threads"] is None
    unplug(laptop, daemon)
    assert daemon.post("echo").status_code == 200
    assert until(lambda: daemon.model("echo")["enough_threads"] == 2)


def test_llamacpp_computes_with_so_many(serve: Callable[..., Daemon], laptop: Path) -> None:
    """As it says itself."""
    daemon = serve("--power-root", str(laptop), "--threads", "2", models=SPARE, program=FAST)
    assert daemon.post("pilot", max_tokens=1).status_code == 200
    assert daemon.model("pilot")["threads"] == 2
    write(laptop, AC_online="0", BAT0_status="Discharging", BAT0_capacity="80")
    assert until(
        lambda: daemon.post("pilot", max_tokens=1).is_success and daemon.model("pilot")["threads"] == 1
    )


def test_fewer_run_side_by_side_while_a_rule_says_so(
    serve: Callable[..., Daemon], tmp_path: Path, laptop: Path
) -> None:
    """On battery one at a time, the others wait; when the plug is back all of them run."""
    write(laptop, AC_online="0", BAT0_status="Discharging", BAT0_capacity="80")
    rule = "[[rule]]\nname = 'one'\nwhen = { supply = 'battery' }\nbackground = { concurrency = 1 }\n"
    settings = "[server]\naccept_s = 0\n[policy]\npreset = 'always'\n" + SUDDENLY
    models = settings + rule + echo(tmp_path, tokens_per_s=20)
    daemon = serve("--power-root", str(laptop), models=models, program=FAST)
    long = [{"role": "user", "content": "one " * 400}]
    with daemon.stream("echo", messages=long, service_tier="flex") as first:
        assert next(first)
        with daemon.stream("echo", messages=long, service_tier="flex") as second:
            assert until(lambda: background_of(daemon) == {"active": 1, "queued": 1})
            assert "a model runs 1 of its background requests side by side" in reasons(daemon)["background"]
            write(laptop, AC_online="1", BAT0_status="Charging")
            assert until(lambda: background_of(daemon) == {"active": 2, "queued": 0})
            assert next(second)


def test_a_model_s_own_limit_counts_for_its_class(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """The second of the background waits; who asks interactively does not."""
    limit = "[model.concurrency]\nbackground = 1\n"
    daemon = serve(models="[server]\naccept_s = 0\n" + echo(tmp_path, tokens_per_s=20) + limit)
    long = [{"role": "user", "content": "one " * 400}]
    with daemon.stream("echo", messages=long, service_tier="flex") as first:
        assert next(first)
        with daemon.stream("echo", messages=long, service_tier="flex"):
            assert until(lambda: background_of(daemon) == {"active": 1, "queued": 1})
            assert daemon.post("echo", max_tokens=1).status_code == 200
            assert background_of(daemon) == {"active": 1, "queued": 1}


def test_an_idle_model_is_unloaded_sooner_on_battery(
    serve: Callable[..., Daemon], tmp_path: Path, laptop: Path
) -> None:
    """Though nobody asks anything after the plug is pulled."""
    rule = "[[rule]]\nname = 'soon'\nwhen = { supply = 'battery' }\nany = { keep_alive = '1s' }\n"
    daemon = serve("--power-root", str(laptop), models=SUDDENLY + rule + echo(tmp_path), program=FAST)
    assert daemon.post("echo").status_code == 200
    write(laptop, AC_online="0", BAT0_status="Discharging")
    assert until(lambda: daemon.model("echo")["state"] == "stopped")
    assert 'pilotlight_evictions_total{model="echo",reason="expired"} 1' in daemon.get("/metrics").text


def background_of(daemon: Daemon) -> dict[str, int]:
    counts: dict[str, int] = daemon.model("echo")["classes"]["background"]
    return counts


def reasons(daemon: Daemon) -> dict[str, str]:
    classes = daemon.get("/admin/policy").json()["classes"]
    return {name: said["reason"] for name, said in classes.items() if said}


def test_rules_are_read_again(serve: Callable[..., Daemon], tmp_path: Path) -> None:
    """The context that a rule leaves is a limit of the answer's model, and told as that."""
    daemon = serve(models="")
    long = [{"role": "user", "content": "one " * 100}]
    assert daemon.post("pilot", messages=long, max_tokens=1).status_code == 200
    rule = "[[rule]]\nname = 'short'\nwhen = {}\ninteractive = { context = 64 }\n"
    (tmp_path / "models.toml").write_text(rule)
    daemon.admin("reload").raise_for_status()
    refused = daemon.post("pilot", messages=long, max_tokens=1)
    assert refused.status_code == 400
    assert "of which the policy allows 64 now" in refused.json()["error"]["message"]
