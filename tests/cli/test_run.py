"""`pilotlight run` against a stand-in daemon, on pipes and on a real terminal."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from fake_daemon import FakeDaemon

from pilotlight.registry.discovery import Discovery
from serving import on_path

ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

SESSION = """
import sys
from pathlib import Path
from pilotlight.cli.session import session
from pilotlight.config import Config
with session(Config.resolve(config_file=Path(sys.argv[1])), None, is_address_given=False) as client:
    print(client.show("echo")["path"])
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """A configuration with nothing but a model that repeats what it is told."""
    (tmp_path / "knobs.toml").write_text("")
    file = tmp_path / "models.toml"
    model = '[[model]]\nname = "echo"\nruntime = "echo"\npath = "knobs.toml"'
    file.write_text(f"[server]\nbuiltin = false\n{model}")
    return file


def test_a_question_on_the_command_line_is_answered_once(run: Run, daemon: FakeDaemon) -> None:
    """The answer and nothing else on stdout."""
    result = run("run", "pilot", "Hi?", "--port", daemon.port)
    assert (result.returncode, result.stdout, result.stderr) == (0, "Hello there\n", "")
    assert daemon.asked == [
        {"model": "pilot", "messages": [{"role": "user", "content": "Hi?"}], "stream": True}
    ]


def test_a_piped_question_goes_to_the_first_model(run: Run, daemon: FakeDaemon) -> None:
    """Without arguments, that is the built-in one."""
    assert run("run", "--port", daemon.port, stdin="Hi?\n").stdout == "Hello there\n"
    assert daemon.asked[0]["messages"][0]["content"] == "Hi?"


def test_a_refusal_is_one_line_and_exit_code_1(run: Run, daemon: FakeDaemon) -> None:
    """In the daemon's words."""
    daemon.error = "no model is named 'x'; did you mean 'pilot'?"
    result = run("run", "x", "Hi?", "--port", daemon.port)
    assert (result.returncode, result.stderr) == (1, f"pilotlight: {daemon.error}\n")


@pytest.mark.parametrize("arguments", [(), ("pilot",), ("What can you do?",)])
def test_nothing_asked_is_an_error(run: Run, arguments: tuple[str, ...]) -> None:
    """A question alone is taken for a model's name. No daemon is started for that."""
    result = run("run", *arguments, stdin=" \n")
    taken = "".join(f"; {model!r} was taken for the MODEL, which comes first" for model in arguments)
    told = f"pilotlight: nothing was asked: give a QUESTION, or pipe one in{taken}\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", told)


def test_nothing_is_asked_on_a_closed_input(environ: dict[str, str]) -> None:
    """Neither by a person nor by a pipe."""
    command = ["sh", "-c", '"$0" -m pilotlight run pilot <&-', sys.executable]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20)
    assert (result.returncode, "pilotlight: nothing was asked" in result.stderr) == (1, True)


def test_a_program_gets_what_the_model_said(run: Run, daemon: FakeDaemon) -> None:
    """Every byte, whatever a terminal would make of it; errors are for people."""
    daemon.answers = ["\x1b[1mbold\x1b", "[0m\x9b"]
    daemon.error_at_end = "gone\x1b]0;title\x07"
    result = run("run", "pilot", "Hi?", "--port", daemon.port)
    assert result.stdout == "\x1b[1mbold\x1b[0m\x9b\n"
    assert result.stderr == "pilotlight: gone]0;title\n"


def test_an_error_in_the_stream_is_told_after_what_was_said(run: Run, daemon: FakeDaemon) -> None:
    """A worker can die in mid-answer."""
    daemon.error_at_end = "the worker died"
    result = run("run", "pilot", "Hi?", "--port", daemon.port)
    assert (result.returncode, result.stdout) == (1, "Hello there\n")
    assert result.stderr == "pilotlight: the worker died\n"


def test_an_answer_that_was_cut_is_told_so(run: Run, daemon: FakeDaemon) -> None:
    """Beside what was said: a rule of the policy may have made it short."""
    daemon.finish_reason = "length"
    result = run("run", "pilot", "Hi?", "--port", daemon.port)
    assert (result.returncode, result.stdout) == (0, "Hello there\n")
    assert result.stderr == "the answer was cut, at a limit of its tokens or of the conversation\n"


def test_a_file_is_asked_only_if_the_daemon_serves_it(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Not another file of its name."""
    file = tmp_path / "mine.gguf"
    file.touch()
    asking = ("run", str(file), "Hi?", "--port", daemon.port)
    result = run(*asking)
    told = f"pilotlight: {daemon.url} does not serve {file}: "
    assert (result.returncode, result.stderr) == (1, f"{told}no model has that name\n")
    daemon.models[0] |= {"id": "mine", "path": "/others/mine.gguf"}
    assert run(*asking).stderr == f"{told}its mine is /others/mine.gguf\n"
    daemon.models[0]["path"] = str(file)
    assert run(*asking).stdout == "Hello there\n"


def test_a_model_s_name_is_one_though_a_file_has_it(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    """In the folder that it is called in."""
    (tmp_path / "pilot").touch()
    assert run("run", "pilot", "Hi?", "--port", daemon.port).stdout == "Hello there\n"


def test_without_the_admin_key_a_file_is_known_by_its_name(
    run: Run, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Of a daemon with another state directory."""
    (tmp_path / "mine.gguf").touch()
    daemon.models[0]["id"] = "mine"
    daemon.refused = "/admin/models/mine"
    asking = ("run", str(tmp_path / "mine.gguf"), "Hi?", "--port", daemon.port)
    assert run(*asking).stdout == "Hello there\n"


def test_a_daemon_without_models_is_told(run: Run, daemon: FakeDaemon) -> None:
    """There is nothing to talk to."""
    daemon.models = []
    result = run("run", "--port", daemon.port, stdin="Hi?")
    assert (result.returncode, result.stderr) == (
        1,
        f"pilotlight: {daemon.url} has no models; `pilotlight pull` gets one\n",
    )


@pytest.mark.parametrize("name", ["why " * 100, "~nobody/x", "a\nb"])
def test_what_cannot_be_a_file_is_a_name(run: Run, daemon: FakeDaemon, name: str) -> None:
    """The daemon knows whether it has one."""
    assert run("run", name, "Hi?", "--port", daemon.port).returncode == 0
    assert daemon.asked[0]["model"] == name


def test_bytes_that_are_no_text_are_refused(run_afresh: Run, daemon: FakeDaemon) -> None:
    """They come from the shell as they were typed."""
    result = run_afresh("run", "pilot", "caf\udce9", "--port", daemon.port)
    told = "pilotlight: the question has bytes that are no text in this terminal's encoding\n"
    assert (result.returncode, result.stderr, daemon.asked) == (1, told, [])


def test_what_a_terminal_has_no_character_for_is_a_question_mark(run_afresh: Run, daemon: FakeDaemon) -> None:
    """The rest of the answer comes all the same."""
    daemon.answers = ["coffee", " \u2615"]
    result = run_afresh("run", "pilot", "Hi?", "--port", daemon.port, PYTHONIOENCODING="latin-1")
    assert (result.returncode, result.stdout) == (0, "coffee ?\n")


def test_the_conversation_is_sent_with_each_question(daemon: FakeDaemon, environ: dict[str, str]) -> None:
    """Until /clear forgets it."""
    with terminal(daemon, environ) as screen:
        screen.type("one\n", "Hello there")
        screen.type("two\n", "Hello there")
        screen.type("/clear\n", "/clear")
        screen.type("three\n", "Hello there")
        assert screen.leave("/bye\n") == 0
    contents = [[message["content"] for message in body["messages"]] for body in daemon.asked]
    assert contents == [["one"], ["one", "Hello there", "two"], ["three"]]


def test_ctrl_c_stops_the_answer_and_not_the_program(daemon: FakeDaemon, environ: dict[str, str]) -> None:
    """What was said stays in the history."""
    daemon.held = threading.Event()
    with terminal(daemon, environ) as screen:
        screen.type("one\n", "Hello", until_prompt=False)
        screen.type("\x03", "stopped")
        daemon.held.set()
        screen.type("two\n", "Hello there")
        assert screen.leave("\x04") == 0
    assert [message["content"] for message in daemon.asked[1]["messages"]] == ["one", "Hello", "two"]


def test_an_error_does_not_end_the_conversation(daemon: FakeDaemon, environ: dict[str, str]) -> None:
    """The question is forgotten; the next one is asked without it."""
    daemon.error = "the queue is full"
    with terminal(daemon, environ) as screen:
        screen.type("one\n", "pilotlight: the queue is full")
        daemon.error = None
        screen.type("two\n", "Hello there")
        assert screen.leave("\x04") == 0
    assert len(daemon.asked[1]["messages"]) == 1


def test_a_terminal_acts_on_nothing_that_is_said(daemon: FakeDaemon, environ: dict[str, str]) -> None:
    """The answer could fill its clipboard, and so could an error. The model is told again what it said."""
    daemon.answers = ["one\x1b", "]52;c;ZXZpbA==\x07 t\rwo"]
    with terminal(daemon, environ) as screen:
        screen.type("one\n", "one]52;c;ZXZpbA== two")
        daemon.error = "gone\x1b]0;title\x07"
        screen.type("two\n", "pilotlight: gone]0;title\r\n")
        assert screen.leave("\x04") == 0
    assert daemon.asked[1]["messages"][1]["content"] == "".join(daemon.answers)


def test_what_is_piped_on_is_what_the_model_says(daemon: FakeDaemon, environ: dict[str, str]) -> None:
    """Who types sees the prompts all the same."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "pilotlight", "run", "--port", daemon.port]
    streams = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": theirs}
    with subprocess.Popen(command, env=environ, text=True, **streams) as process:
        os.close(theirs)
        screen = Screen(ours, process)
        screen.expect(">>> ")
        screen.type("one\n", ">>> ", until_prompt=False)
        os.write(ours, b"\x04")
        assert process.communicate(timeout=20) == ("Hello there\n", None)
    os.close(ours)


def test_it_keeps_no_history(daemon: FakeDaemon, environ: dict[str, str], tmp_path: Path) -> None:
    """No file in the home directory."""
    with terminal(daemon, environ) as screen:
        screen.type("a secret\n", "Hello there")
        assert screen.leave("\x04") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_loading_model_shows_a_progress_bar(daemon: FakeDaemon, environ: dict[str, str]) -> None:
    """On the terminal, gone when the answer begins; by any of its names, and where a key is needed."""
    daemon.models[0] |= {"state": "starting", "progress": 0.5, "aliases": ["small"]}
    daemon.answers, daemon.held = ["Hello there"], threading.Event()
    own = {"TERM": "xterm", "PILOTLIGHT_API_KEYS": "a-key-for-the-person"}
    with terminal(daemon, environ | own, "small") as screen:
        screen.type("one\n", "loading small", until_prompt=False)
        screen.expect("50%")
        daemon.models[0] |= {"is_measuring": True}
        screen.expect("measuring threads for small")
        daemon.held.set()
        screen.expect("Hello there")
        screen.expect(">>> ")
        assert screen.leave("\x04") == 0
    assert daemon.keys == {"Bearer a-key-for-the-person"}


def test_without_a_daemon_it_runs_one_of_its_own(run: Run, echo: Path, tmp_path: Path) -> None:
    """It says so, and nothing of it stays behind."""
    result = run("run", "echo", "Are you there?", "--config", str(echo))
    assert (result.returncode, result.stdout.strip()) == (0, "Are you there?")
    assert result.stderr == "no daemon is running: starting one for this session\n"
    assert not (tmp_path / "state" / "daemon.json").exists()


def test_its_own_daemon_runs_nothing_of_the_folder_it_is_called_in(
    run: Run, echo: Path, tmp_path: Path
) -> None:
    """Whatever somebody unpacked there may be called like a module."""
    (tmp_path / "anyio.py").write_text("from pathlib import Path; Path('was_run').touch()")
    result = run("run", "echo", "Are you there?", "--config", str(echo))
    assert (result.returncode, result.stdout.strip()) == (0, "Are you there?"), result.stderr
    assert not (tmp_path / "was_run").exists()


def test_its_own_daemon_needs_no_signal_that_windows_lacks(
    run_afresh: Run, echo: Path, tmp_path: Path
) -> None:
    """Nor does who starts it."""
    lacking = on_path(tmp_path / "path", sitecustomize="import signal; del signal.SIGHUP")
    result = run_afresh("run", "echo", "Are you there?", "--config", str(echo), **lacking)
    assert (result.returncode, result.stdout.strip()) == (0, "Are you there?"), result.stderr


@contextmanager
def talking(echo: Path, environ: dict[str, str], *before: str) -> Iterator[subprocess.Popen[str]]:
    """A session in the middle of an answer of half a minute, with a daemon of its own."""
    echo.with_name("knobs.toml").write_text("tokens_per_s = 10.0")
    session = [sys.executable, "-m", "pilotlight", "run", "echo", "one " * 300, "--config", str(echo)]
    command = [*before, *session]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == "one"
        yield process


def test_its_own_daemon_ends_when_it_is_ended(echo: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """Closing the terminal window sends SIGHUP, a service manager SIGTERM."""
    with talking(echo, environ) as process:
        (daemon,) = psutil.Process(process.pid).children()
        process.terminate()
        assert process.wait(20) == 128 + 15
    assert not daemon.is_running()


def test_what_is_to_outlive_the_terminal_does(echo: Path, environ: dict[str, str]) -> None:
    """`nohup` has SIGHUP ignored."""
    with talking(echo, environ, "nohup") as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stdout.read(8) == " one one"
        process.terminate()
        assert process.wait(20) == 128 + 15


def test_its_own_daemon_ends_when_it_is_killed(echo: Path, environ: dict[str, str]) -> None:
    """It could tell nobody, and nobody could find its daemon."""
    with talking(echo, environ) as process:
        (daemon,) = psutil.Process(process.pid).children()
        process.kill()
    daemon.wait(20)


def test_its_own_daemon_leaves_batches_alone(echo: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """They are another one's to go on with, which people can find."""
    (tmp_path / "state" / "batches").mkdir(parents=True)
    with talking(echo, environ) as process:
        assert not list((tmp_path / "state" / "batches").iterdir())
        process.terminate()


def test_its_own_daemon_is_nobody_else_s(
    run: Run, echo: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """It would end in the middle of their answer."""
    with talking(echo, environ) as process:
        result = run("ps", "--config", str(echo))
        process.terminate()
    assert (result.returncode, Discovery(tmp_path / "state").read()) == (1, None)
    assert result.stderr == "pilotlight: no daemon is running; `pilotlight serve` starts one\n"


def test_a_session_has_the_key_to_its_own_daemon(echo: Path, environ: dict[str, str]) -> None:
    """Though it is told to nobody where that is: paths of files are for those with the key."""
    told = subprocess.run(
        [sys.executable, "-c", SESSION, str(echo)], env=environ, capture_output=True, text=True, timeout=50
    )
    assert told.stdout.strip() == str(echo.with_name("knobs.toml")), told.stderr


class Screen:
    """A person's side of a pseudo-terminal."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self._fd = fd
        self._process = process
        self._seen = ""

    def expect(self, text: str) -> None:
        """Wait until the text stands on the screen, and go on after it."""
        while text not in self._seen:
            self._seen += os.read(self._fd, 4096).decode()
        self._seen = self._seen.partition(text)[2]

    def type(self, keys: str, text: str, *, until_prompt: bool = True) -> None:
        """Type, and wait for the text that must follow and for the next prompt."""
        os.write(self._fd, keys.encode())
        self.expect(text)
        if until_prompt:
            self.expect(">>> ")

    def leave(self, keys: str) -> int:
        os.write(self._fd, keys.encode())
        return self._process.wait(20)


@contextmanager
def terminal(daemon: FakeDaemon, environ: dict[str, str], *arguments: str) -> Iterator[Screen]:
    """`pilotlight run` on a terminal that Ctrl-C works on."""
    ours, theirs = os.openpty()
    command = [
        sys.executable,
        "-c",
        ON_TERMINAL,
        sys.executable,
        "-m",
        "pilotlight",
        "run",
        *arguments,
        "--port",
        daemon.port,
    ]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    )
    os.close(theirs)
    try:
        screen = Screen(ours, process)
        screen.expect(">>> ")
        yield screen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
