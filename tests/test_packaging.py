"""The Dockerfile and the systemd unit are true: what they run exists, and what they say of it holds."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest

from pilotlight.cli import cli
from pilotlight.daemon import ExitCode
from pilotlight.settings import ServerSettings
from pilotlight.worker.handle import STOP_S

ROOT = Path(__file__).parents[1]

UNIT = ROOT / "systemd" / "pilotlight.service"


def accepts(arguments: list[str]) -> None:
    """Our command line takes these arguments; raises `click.UsageError` if not."""
    name, command, rest = cli.resolve_command(click.Context(cli), arguments)
    assert command is not None
    command.make_context(name, rest)


@pytest.fixture
def service() -> configparser.SectionProxy:
    """The [Service] section."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def test_the_unit_runs_our_command(service: configparser.SectionProxy) -> None:
    """With arguments that it takes."""
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "pilotlight"
    accepts(arguments)


def test_the_unit_does_not_repeat_what_cannot_succeed(service: configparser.SectionProxy) -> None:
    """An internal failure is what restarting is for."""
    hopeless = {ExitCode.BAD_CONFIG, ExitCode.ADDRESS_IN_USE, ExitCode.FORCED}
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == hopeless
    assert service["Restart"] == "on-failure"


def test_the_unit_waits_for_an_address(service: configparser.SectionProxy) -> None:
    """A start without it is a failure, and systemd gives up after five of them unless it is told not to."""
    assert service.parser["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_unit_lets_answers_finish(service: configparser.SectionProxy) -> None:
    """The workers hear no signal, and killing comes after draining."""
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > ServerSettings().drain_s + 2 * STOP_S


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """It would ignore a key it does not know."""
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is a part of systemd, which a container need not have")
    program = tmp_path / ".local" / "bin" / "pilotlight"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    environ = os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [analyze, "--user", "--man=no", "verify", str(UNIT)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, with their continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def last(word: str) -> str:
    """Of an instruction that is there once, or of which the last one counts."""
    return [rest for other, rest in instructions() if other == word][-1]


def test_the_image_runs_our_command() -> None:
    """And asks it whether it is well."""
    (program,) = json.loads(last("ENTRYPOINT"))
    checker, *check = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert (program, checker) == ("pilotlight", "pilotlight")
    accepts(json.loads(last("CMD")))
    accepts(check)


def test_the_image_gets_every_file_it_copies() -> None:
    """They exist, and .dockerignore lets them through."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"]
    copied = [path for word, rest in instructions() if word == "COPY" for path in rest.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert any(fnmatch(path, pattern) for pattern in allowed), path


def test_the_image_is_not_run_by_root() -> None:
    """Who can write only where the state is kept."""
    assert last("USER") == "pilotlight"
    setting, _, path = last("ENV").partition("=")
    assert setting.removeprefix("PILOTLIGHT_").lower() in ServerSettings.model_fields
    assert path == last("VOLUME")


def test_both_stages_have_the_same_python() -> None:
    """A wheel of llama.cpp is for one version."""
    images = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    assert len(images) == 1
