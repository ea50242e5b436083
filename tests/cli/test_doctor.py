"""`pilotlight doctor` and the advice it gives."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_daemon import FakeDaemon

from pilotlight.cli import doctor, machine
from pilotlight.cli.advice import advise
from pilotlight.cli.machine import Cpu, Library
from pilotlight.registry.ladder import Ladder, Outcome
from serving import on_path
from store_factory import GGUF, write

Run = Callable[..., subprocess.CompletedProcess[str]]

AMX = Cpu("Xeon", ("avx2", "amx_tile"), 2, 2)
PLAIN = Cpu("EPYC", ("avx2",), 2, 2)
LLAMACPP = Library("llamacpp", "llama-cpp-python", "llama-cpp-python", "0.3.36")
CRASHED = Outcome("x86", "llamacpp", "0.3.36 abc", "no-extra-buffers", "SIGILL while warming up", 1.0)


def told(findings: dict[str, Any]) -> str:
    """As they are printed, but on one line."""
    return " ".join("\n".join(doctor._lines(findings)).split())


def test_models_that_cannot_be_used_are_told(run: Run, tmp_path: Path) -> None:
    """With where they are and why; those that can are counted."""
    write(tmp_path / "models", {"good.gguf": GGUF, "half-00001-of-00002.gguf": GGUF})
    findings = json.loads(run("doctor", "--json").stdout)
    assert findings["models"]["folder"] == 1
    (skipped,) = findings["not_used"]
    assert (skipped["store"], Path(skipped["path"]).name) == ("folder", "half-00001-of-00002.gguf")
    assert "is one of 2 parts, of which 1 are there" in told(findings)


def test_what_can_be_sensed_is_told(run: Run, tmp_path: Path) -> None:
    """With where from; and what can not, with the reason."""
    battery = tmp_path / "machine/sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    for file, text in {"type": "Battery", "status": "Discharging", "capacity": "40"}.items():
        (battery / file).write_text(text)
    root = {"PILOTLIGHT_POWER_ROOT": str(tmp_path / "machine")}
    findings = json.loads(run("doctor", "--json", **root).stdout)
    power = findings["power"]
    assert power["known"] == {"supply": "power_supply BAT0", "percent": "power_supply BAT0"}
    assert power["unknown"]["celsius"] == "there is no thermometer"
    assert "percent (power_supply BAT0)" in told(findings)


def test_amx_that_crashed_is_answered_with_the_build_line() -> None:
    """To be pasted as it is: same version, same Python."""
    (advice,) = advise(AMX, [LLAMACPP], [CRASHED], "/venv/bin/python")
    assert advice.splitlines()[-1] == (
        "CMAKE_ARGS=\"-DCMAKE_C_FLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16' "
        "-DCMAKE_CXX_FLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'\" /venv/bin/python -m pip install "
        "--force-reinstall --no-cache-dir --no-deps llama-cpp-python==0.3.36"
    )


def test_a_crash_of_another_kind_can_be_forgotten() -> None:
    """Without AMX a rebuild would not help."""
    (advice,) = advise(PLAIN, [LLAMACPP], [CRASHED], "python")
    assert "SIGILL while warming up" in advice
    assert advice.endswith("pilotlight doctor --reset")


def test_a_machine_without_crashes_needs_no_advice() -> None:
    """Not even one with AMX: on real processors it works."""
    assert list(advise(AMX, [LLAMACPP], [], "python")) == []


def test_a_missing_llamacpp_is_answered_with_the_install_line() -> None:
    """It is part of the default install, so something went wrong."""
    missing = Library("llamacpp", "llama-cpp-python", "llama-cpp-python", None)
    (advice,) = advise(PLAIN, [missing], [], "/my venv/python")
    assert advice.endswith("'/my venv/python' -m pip install llama-cpp-python")


def test_a_library_whose_import_fails_is_to_be_installed_anew() -> None:
    """The same versions; not Pilotlight itself."""
    needs = (("tokenizers", "0.23.3"),)
    broken = Library("onnx", "onnxruntime", "pilotlight[onnx]", "1.31.1", needs, fault="died of SIGILL")
    (advice,) = advise(PLAIN, [LLAMACPP, broken], [], "python")
    assert "the library of onnx fails (died of SIGILL)" in advice
    assert advice.endswith(
        "--force-reinstall --no-cache-dir --no-deps onnxruntime==1.31.1 tokenizers==0.23.3"
    )


def test_features_come_from_cpuinfo(tmp_path: Path) -> None:
    """Those that matter, of the first processor."""
    file = tmp_path / "cpuinfo"
    file.write_text(
        "model name\t: Xeon\nflags\t\t: fpu avx2 amx_tile\n\nmodel name\t: other\nflags\t\t: fpu\n"
    )
    cpu = machine.cpu(file)
    assert (cpu.name, cpu.features, cpu.has_amx) == ("Xeon", ("avx2", "amx_tile"), True)


def test_without_cpuinfo_the_features_are_unknown(tmp_path: Path) -> None:
    """Unknown is not none."""
    assert machine.cpu(tmp_path / "none").features is None


def test_it_reports_what_it_found(run: Run, tmp_path: Path) -> None:
    """One labelled line each, of a runtime with all that it needs and its providers; and what crashed."""
    Ladder(tmp_path / "state").remember("llamacpp", "no-extra-buffers", "SIGILL while warming up")
    said = run("doctor").stdout
    lines = [line for line in said.splitlines() if line[:1].isalpha()]
    expected = ("pilotlight", "python", "platform", "cpu", "features", "memory", "llamacpp", "onnx", "mlx")
    assert tuple(line.split()[0] for line in lines[:9]) == expected
    assert re.fullmatch(r"onnx +onnxruntime [\d.]+, tokenizers [\d.]+; providers: .*cpu.*", lines[7])
    assert "SIGILL while warming up" in said


def test_a_library_that_kills_who_imports_it_is_told(run: Run, tmp_path: Path) -> None:
    """The doctor outlives it, and says how to mend it."""
    deadly = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    result = run("doctor", **on_path(tmp_path / "path", **{"onnxruntime.__init__": deadly}))
    assert result.returncode == 1
    assert "cannot be imported: died of SIGSEGV" in result.stdout
    assert "--force-reinstall --no-cache-dir --no-deps onnxruntime==" in result.stdout


def test_a_library_that_cannot_be_imported_is_told_in_its_own_words(run: Run, tmp_path: Path) -> None:
    """What it needs is not there, say."""
    broken = "raise ImportError('no libgpu.so.1')"
    result = run("doctor", **on_path(tmp_path / "path", **{"tokenizers.__init__": broken}))
    assert "cannot be imported: ImportError: no libgpu.so.1" in result.stdout


def test_a_library_that_is_tried_tells_nobody_of_itself(tmp_path: Path) -> None:
    """ONNX Runtime would keep a number for this machine, and what it is to upload, in the user's home."""
    command = [sys.executable, "-P", "-m", "pilotlight.runtimes.probe", "onnx"]
    subprocess.run(command, env={"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*"))


def test_json_holds_the_same(run: Run, daemon: FakeDaemon) -> None:
    """With the running daemon and its notices."""
    daemon.notices.append({"code": "x", "severity": "warning", "text": "slow mode", "since": 1.0})
    result = run("doctor", "--json", "--port", daemon.port)
    found = json.loads(result.stdout)
    assert (found["daemon"], found["notices"][0]["text"]) == (daemon.url, "slow mode")
    assert result.returncode == 1


def test_reset_forgets_the_crashes(run: Run, tmp_path: Path) -> None:
    """The next load tries the fastest mode again."""
    ladder = Ladder(tmp_path / "state")
    ladder.remember("llamacpp", "no-extra-buffers", "SIGILL while warming up")
    assert "SIGILL" not in run("doctor", "--reset").stdout
    assert ladder.outcomes() == []
