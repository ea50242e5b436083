"""A daemon on a machine that is a folder: what answers take by its meters."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import openai
import pytest

from serving import FAST, Daemon, echo, on_path, until

MESSAGES: Any = [{"role": "user", "content": "one two three"}]

LONG = "one " * 60

NVML = """
import time
NVMLError, NVML_INIT_FLAG_NO_ATTACH = OSError, 2
nvmlInitWithFlags = nvmlDeviceGetHandleByPciBusId = lambda _: None
nvmlShutdown = lambda: None
nvmlDeviceGetTemperatureV = lambda gpu, sensor: 64
nvmlDeviceGetCurrentClocksEventReasons = lambda gpu: 0
nvmlDeviceGetPowerUsage = lambda gpu: 50_000
nvmlDeviceGetTotalEnergyConsumption = lambda gpu: int(time.monotonic() * 100_000)
"""
"""A GPU that says it draws 50 W, and whose counter says 100."""

ELSEWHERE = """
from pathlib import Path
from pilotlight.power import nvidia
nvidia.Nvidia.__init__.__defaults__ = (Path({root!r}),)
"""
"""What our processes have open is looked up there: none of them can open a GPU here."""


class Machine:
    """Its files; a counter of a processor, which a test moves, and a battery."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._energy_uj = 10**9

    def has_counter(self) -> None:
        self._write("class/powercap/intel-rapl:0", name="package-0", max_energy_range_uj=10**12)
        self.count(0)

    def count(self, joules: int) -> None:
        self._energy_uj += joules * 10**6
        self._write("class/powercap/intel-rapl:0", energy_uj=self._energy_uj)

    def gives(self, watts: int) -> None:
        """By its battery of 50 Wh."""
        battery = "class/power_supply/BAT0"
        self._write(battery, type="Battery", status="Discharging", capacity=80, energy_full=50_000_000)
        self._write(battery, energy_now=40_000_000, power_now=watts * 10**6)

    def has_gpu(self) -> None:
        self._write("bus/pci/drivers/nvidia/0000:01:00.0/power", runtime_status="active")

    def opens_gpu(self, pid: int) -> None:
        """The worker of this pid does."""
        folder = self.root / f"proc/{pid}/fd"
        folder.mkdir(parents=True)
        (folder / "9").symlink_to("/dev/nvidia0")

    def _write(self, folder: str, **files: Any) -> None:
        path = self.root / "sys" / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            new = path / f"{name}.new"
            new.write_text(f"{text}\n")
            new.replace(path / name)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "machine").mkdir()
    return Machine(tmp_path / "machine")


@pytest.fixture
def started(serve: Callable[..., Daemon], tmp_path: Path, machine: Machine) -> Callable[..., Daemon]:
    """Start a daemon there, with an echo that speaks slowly, and `pilot`."""

    def start(**settings: Any) -> Daemon:
        models = "[policy]\npreset = 'always'\n" + echo(tmp_path, tokens_per_s=20, parallel=4)
        return serve("--power-root", str(machine.root), models=models, **settings)

    return start


def energy_of(daemon: Daemon, meanwhile: Callable[[], Any], model: str = "echo") -> Any:
    """Of a streamed answer by openai-python; `meanwhile` is called after its first token."""
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none") as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": LONG}],
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
        next(stream)
        meanwhile()
        usage = list(stream)[-1].usage
    assert usage is not None and usage.model_extra is not None
    return usage.model_extra["energy"]


def test_an_answer_says_what_the_processor_counted(started: Callable[..., Daemon], machine: Machine) -> None:
    """All of it, as it is alone; openai-python's user reads it beside the tokens."""
    machine.has_counter()
    energy = energy_of(started(), lambda: machine.count(7))
    assert (energy["method"], energy["scope"], energy["share"]) == ("rapl", "package", 1.0)
    assert (energy["joules"], energy["decode_joules"]) == (7, 7)
    assert "battery_percent" not in energy


def test_answers_side_by_side_share_what_was_counted(
    started: Callable[..., Daemon], machine: Machine
) -> None:
    """Together with what is nobody's it is all that was counted."""
    machine.has_counter()
    daemon = started()
    all_speak = Barrier(3, lambda: machine.count(15), timeout=60)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(energy_of, daemon, all_speak.wait) for _ in range(3)]
        energies = [one.result() for one in asked]
    (meter,) = (one for one in daemon.get("/admin/energy").json()["meters"] if one["method"] == "rapl")
    shared = sum(energy["joules"] for energy in energies)
    assert shared + meter["unattributed_joules"] == pytest.approx(meter["joules"], rel=1e-3)
    assert 0 < meter["joules"] <= 15
    assert all(0 <= energy["share"] <= 1 for energy in energies)


def test_totals_are_by_model_and_by_app(started: Callable[..., Daemon], machine: Machine) -> None:
    """With the tokens that were computed; in the metrics, too."""
    machine.has_counter()
    daemon = started()
    energy_of(daemon, lambda: machine.count(7))
    said = daemon.get("/admin/energy").json()
    (model,), (app,) = said["models"], said["apps"]
    assert (model["model"], model["joules"], model["decode_tokens"]) == ("echo", 7, 20)
    assert (app["app"], app["class"], app["joules"]) == ("OpenAI/Python", "interactive", 7)
    metrics = daemon.get("/metrics").text
    labels = 'method="rapl",model="echo",phase="decode",scope="package"'
    assert f"pilotlight_energy_joules_total{{{labels}}} 7.0" in metrics


def test_prompts_and_answers_are_told_apart(started: Callable[..., Daemon], machine: Machine) -> None:
    """By a real model: its own tokens are those that it computed."""
    machine.has_counter()
    daemon = started()
    said = daemon.post("pilot", messages=MESSAGES, max_tokens=8, ignore_eos=True).json()
    assert said["usage"]["energy"]["method"] == "rapl"
    (model,) = daemon.get("/admin/energy").json()["models"]
    computed = said["usage"]["prompt_tokens"] - said["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert (model["prefill_tokens"], model["decode_tokens"]) == (computed, 7)


def test_on_battery_it_is_the_whole_machine_and_in_percent(
    started: Callable[..., Daemon], machine: Machine
) -> None:
    """Once the gauge has said something new."""
    machine.gives(10)
    daemon = started()

    def drawing_more() -> None:
        machine.gives(12)
        assert until(lambda: "pilotlight_power_watts 12.0" in daemon.get("/metrics").text)

    energy = energy_of(daemon, drawing_more)
    assert (energy["method"], energy["scope"]) == ("battery", "system")
    assert energy["joules"] > 0
    assert energy["battery_percent"] == pytest.approx(100 * energy["joules"] / (50 * 3600), rel=1e-3)


def test_of_a_model_on_a_gpu_both_are_counted(
    started: Callable[..., Daemon], machine: Machine, tmp_path: Path
) -> None:
    """By a stand-in for NVML, of a GPU that draws 100 W; asked only once its worker has the GPU open."""
    machine.has_counter()
    machine.has_gpu()
    program = ELSEWHERE.format(root=str(machine.root)) + FAST
    daemon = started(environ=on_path(tmp_path / "modules", pynvml=NVML), program=program)
    daemon.post("echo").raise_for_status()
    assert "no model is on the GPU" in daemon.get("/admin/policy").json()["reading"]["gpu_watts"]["reason"]
    machine.opens_gpu(daemon.worker("echo").pid)
    assert until(lambda: daemon.get("/admin/policy").json()["reading"]["gpu_watts"].get("value"))

    def seen_working() -> None:
        machine.count(7)
        assert until(lambda: watts_of(daemon) > 60)

    energy = energy_of(daemon, seen_working)
    assert (energy["method"], energy["scope"]) == ("rapl+nvml", "package+gpu")
    assert energy["joules"] > 7


def watts_of(daemon: Daemon) -> float:
    """Of the GPU, as last seen."""
    match = re.search(r"^pilotlight_gpu_power_watts (.+)$", daemon.get("/metrics").text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_without_a_meter_it_says_none_and_why(started: Callable[..., Daemon], machine: Machine) -> None:
    """No guess takes a meter's place, unless the user says what a core draws."""
    energy = energy_of(started(), lambda: None)
    assert (energy["method"], energy["joules"]) == ("none", None)
    assert energy["reason"] == "no meter counted all of it; GET /admin/energy says why"


def test_with_the_users_word_for_a_core_it_is_reckoned(
    started: Callable[..., Daemon], machine: Machine
) -> None:
    """And named for what it is."""
    daemon = started(environ={"PILOTLIGHT_POWER_WATTS_PER_CORE": "5"})
    energy = energy_of(daemon, lambda: None, "pilot")
    assert (energy["method"], energy["scope"]) == ("model", "process")


def test_lines_of_a_batch_say_what_they_took(started: Callable[..., Daemon], machine: Machine) -> None:
    """By openai-python; the totals name the class, and have all of it."""
    machine.has_counter()
    daemon = started()
    body = {"model": "echo", "messages": [{"role": "user", "content": LONG}], "max_tokens": 20}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none") as client:
        file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        until(lambda: daemon.model("echo")["active"])
        machine.count(7)
        done = until(lambda: ended(client, batch.id))
        answer = json.loads(client.files.content(done.output_file_id or "").text)
    energy = answer["response"]["body"]["usage"]["energy"]
    assert (energy["method"], energy["joules"]) == ("rapl", 7)
    (app,) = daemon.get("/admin/energy").json()["apps"]
    assert (app["class"], app["joules"]) == ("batch", 7)
    assert 'class="batch",method="rapl",scope="package"} 7.0' in daemon.get("/metrics").text


def ended(client: openai.OpenAI, batch_id: str) -> openai.types.Batch | None:
    """The batch once it has."""
    batch = client.batches.retrieve(batch_id)
    return batch if batch.status == "completed" else None
