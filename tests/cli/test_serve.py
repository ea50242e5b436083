"""`pilotlight` itself and `pilotlight serve` up to the daemon."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from store_factory import Ollama

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_version_is_the_package_version(run: Run) -> None:
    """One line, for bug reports."""
    from pilotlight import __version__

    assert run("--version").stdout == f"pilotlight {__version__}\n"


@pytest.mark.parametrize(
    "command", ["serve", "run", "ls", "show", "ps", "load", "stop", "doctor", "completion"]
)
def test_every_command_has_a_help_text_with_what_it_does(run: Run, command: str) -> None:
    """--help works for each and ends well."""
    result = run(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Usage: pilotlight {command}" in result.stdout


def test_the_daemon_imports_nothing_that_it_does_not_use() -> None:
    """Each of them costs the start some hundredths of a second, and the daemon some megabytes for good."""
    unused = {"rich", "pygments", "numpy", "llama_cpp", "huggingface_hub", "jeepney"}
    code = "import sys; from pilotlight import log, daemon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert unused.isdisjoint(loaded.split())


def test_help_imports_nothing_heavy() -> None:
    """The command line starts in a tenth of a second."""
    heavy = {"pydantic", "httpx", "rich", "fastapi", "uvicorn", "structlog", "numpy", "llama_cpp"}
    assert heavy.isdisjoint(loaded_by("nothing, so all of them"))


def test_a_command_imports_no_other() -> None:
    """What `serve` needs and no more."""
    commands = {name for name in loaded_by("serve") if name.startswith("pilotlight.cli.")}
    assert commands == {"pilotlight.cli.serve", "pilotlight.cli.options"}


def loaded_by(command: str) -> set[str]:
    """Modules that looking a command up imports."""
    code = (
        f"import sys; from pilotlight.cli import cli; cli.get_command(None, {command!r}); print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_an_unknown_command_is_told_the_nearest_one(run: Run) -> None:
    """Among all, also those whose modules nobody has wanted yet."""
    assert "Did you mean 'doctor'?" in run("docter").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "70000"), "pilotlight: --port = 70000: must be less than or equal to 65535"),
        (("--host", "0.0.0.0"), "needs an API key"),
        (("--model", "nothing.gguf"), "pilotlight: --model nothing.gguf: no such file"),
        (("--config", "nothing.toml"), "cannot read the configuration: No such file or directory"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """No traceback, no daemon."""
    result = run("serve", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_setting_that_no_runtime_honours_is_one_line_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    """It is found when the models are made, after the port is taken."""
    (tmp_path / "m.toml").write_text("[[model]]\nname = 'm'\npath = 'm'\nruntime = 'mlx'\nthreads = 2")
    result = run("serve", "--port", "0", "--config", "m.toml")
    assert result.returncode == 2
    assert result.stderr == "pilotlight: model 'm': threads is not supported by mlx\n"


def test_an_unknown_variable_is_one_line_and_exit_code_2(run: Run) -> None:
    """Typing errors in unit files are seen at the start."""
    result = run("serve", PILOTLIGHT_PROT="1")
    assert result.returncode == 2
    assert "did you mean 'PILOTLIGHT_PORT'?" in result.stderr


def test_the_users_configuration_file_is_found(run: Run, tmp_path: Path) -> None:
    """In the configuration directory of the user."""
    file = tmp_path / ".config" / "pilotlight" / "models.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[server]\nprot = 1")
    assert (
        f"{file}: unknown key server.prot" in run("serve", XDG_CONFIG_HOME=str(tmp_path / ".config")).stderr
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run: Run, shell: str) -> None:
    """For the shell that is named."""
    result = run("completion", shell)
    assert result.returncode == 0
    assert "_PILOTLIGHT_COMPLETE" in result.stdout


def test_names_of_found_models_are_completed(run: Run, tmp_path: Path) -> None:
    """Those that other programs brought."""
    Ollama(tmp_path / ".ollama" / "models").add("ollama.ai/library/llama3.2/3b")
    asked = {"_PILOTLIGHT_COMPLETE": "bash_complete", "COMP_WORDS": "pilotlight show ol", "COMP_CWORD": "2"}
    assert run(**asked).stdout.strip() == "plain,ollama/llama3.2:3b"


def test_model_names_are_completed_from_the_configuration(run: Run) -> None:
    """As the shell's script asks for them."""
    asked = {"_PILOTLIGHT_COMPLETE": "bash_complete", "COMP_WORDS": "pilotlight run pi", "COMP_CWORD": "2"}
    assert run(**asked).stdout.strip() == "plain,pilot\nplain,pilot-onnx\nplain,pilot-mlx"
