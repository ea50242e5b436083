"""`pilotlight fit`, without a daemon; for repositories, with a small hub on this machine."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import FakeDaemon

import pilotlight
from gguf_header import PUBLISHED
from pilotlight.registry.discovery import Discovery

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_model_of_the_configuration_is_judged_by_name(run: Run) -> None:
    """The built-in one fits everywhere."""
    result = run("fit", "pilot")
    assert result.returncode == 0, result.stderr
    first, *_ = result.stdout.splitlines()
    assert first == "pilot: llama, mostly Q8_0, 3 million weights, 3 MB"
    assert "with a context of 2048 it fits" in result.stdout
    assert "tokens/s" in result.stdout


def test_a_header_is_enough(run: Run, tmp_path: Path) -> None:
    """As JSON: every row with its bytes, and the speed of the memory that was measured."""
    (tmp_path / "phi.gguf").write_bytes(PUBLISHED["Phi-4-mini"].header())
    found = json.loads(run("fit", "phi.gguf", "--context", "5000", "--json").stdout)
    assert (found["context"], found["subject"]["kind"]) == (5000, "phi3, mostly Q4_0")
    assert 5000 in [row["context"] for row in found["rows"]]
    assert found["machine"]["bytes_per_s"] > 10**8
    assert found["tokens_per_s"] > 0


def test_what_does_not_fit_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    """With what would make it fit; no test machine has room for this."""
    huge = PUBLISHED["gpt-oss-20b"]
    (tmp_path / "huge.gguf").write_bytes(huge.header())
    result = run("fit", "huge.gguf", "--context", str(2**24))
    assert result.returncode == 1
    assert "with a context of 16777216 it does not fit" in result.stdout
    assert "  - " in result.stdout


def test_a_model_s_own_cap_is_what_it_may_take(run: Run, tmp_path: Path) -> None:
    """Unless another limit is given."""
    (tmp_path / "qwen.gguf").write_bytes(PUBLISHED["Qwen3 0.6B"].header())
    (tmp_path / "models.toml").write_text('[[model]]\nname = "q"\npath = "qwen.gguf"\nmemory = "1GB"')
    result = run("fit", "q", "--config", "models.toml", "--json")
    found = json.loads(result.stdout)
    assert (result.returncode, found["machine"]["bytes_available"]) == (1, 10**9)
    assert 0 < found["largest_context"] < 8192
    assert run("fit", "q", "--config", "models.toml", "--within", "9GB").returncode == 0


def machine(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a model was judged for."""
    found: dict[str, Any] = json.loads(result.stdout)["machine"]
    return found


def test_a_budget_is_what_a_model_may_take(run: Run, tmp_path: Path) -> None:
    """As the daemon sees it; then another budget is what would help, unless the model's own cap is less."""
    (tmp_path / "qwen.gguf").write_bytes(PUBLISHED["Qwen3 0.6B"].header())
    result = run("fit", "qwen.gguf", PILOTLIGHT_MEMORY_BUDGET="1GB")
    assert result.returncode == 1
    assert "memory it may take: 1.00 GB of " in result.stdout
    assert " GB higher: it was given one" in result.stdout
    (tmp_path / "models.toml").write_text(
        '[memory]\nbudget = "1GB"\n[[model]]\nname = "q"\npath = "qwen.gguf"\nmemory = "500MB"'
    )
    capped = machine(run("fit", "q", "--config", "models.toml", "--json"))
    assert (capped["bytes_available"], capped["is_limited"]) == (500 * 10**6, True)


def test_what_the_budget_leaves_free_is_not_there(run: Run, tmp_path: Path) -> None:
    """It is no limit that somebody could raise, either; a given one is."""
    (tmp_path / "qwen.gguf").write_bytes(PUBLISHED["Qwen3 0.6B"].header())
    asked = ("fit", "qwen.gguf", "--json")
    reserving = machine(run(*asked, PILOTLIGHT_MEMORY_RESERVE="99%"))
    assert 0 < reserving["bytes_available"] <= 0.011 * reserving["bytes_total"]
    assert reserving["bytes_reserved"] == int(0.99 * reserving["bytes_total"])
    assert not reserving["is_limited"]
    given = machine(run(*asked, "--within", "100%", PILOTLIGHT_MEMORY_RESERVE="99%"))
    assert given["bytes_available"] == given["bytes_total"]
    assert (given["is_limited"], given["bytes_reserved"]) == (True, 0)


def test_a_running_daemon_says_what_there_is(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    """It tells its own workers from other programs. A limit that somebody has set is asked of nobody, and
    one that does not answer is none."""
    (tmp_path / "state").mkdir(mode=0o700)
    Discovery(tmp_path / "state").write(daemon.url)
    daemon.memory["budget"] = 12_345_678
    (tmp_path / "qwen.gguf").write_bytes(PUBLISHED["Qwen3 0.6B"].header())
    asked = ("fit", "qwen.gguf", "--json")
    told = machine(run(*asked))
    assert (told["bytes_available"], told["is_limited"]) == (12_345_678, False)
    assert machine(run(*asked, "--within", "1GB"))["bytes_available"] == 10**9
    assert machine(run(*asked, PILOTLIGHT_MEMORY_BUDGET="2GB"))["bytes_available"] == 2 * 10**9
    daemon.refused = "/v1/models"
    assert machine(run(*asked))["bytes_available"] != 12_345_678


def test_a_model_is_judged_with_the_context_of_its_table(run: Run, tmp_path: Path) -> None:
    """Unless another is asked for."""
    (tmp_path / "qwen.gguf").write_bytes(PUBLISHED["Qwen3 0.6B"].header())
    (tmp_path / "models.toml").write_text('[[model]]\nname = "q"\npath = "qwen.gguf"\ncontext = 3000')
    asked = ("fit", "q", "--config", "models.toml", "--json")
    contexts = [json.loads(run(*asked, *more).stdout)["context"] for more in ((), ("--context", "5000"))]
    assert contexts == [3000, 5000]


def test_a_folder_is_judged_too(run: Run) -> None:
    """By its files."""
    assert run("fit", "pilot-onnx").stdout.startswith("pilot-onnx: onnx folder, ")


@pytest.mark.parametrize("name", [".", "./"])
def test_the_folder_it_is_called_in_is_judged_too(run: Run, tmp_path: Path, name: str) -> None:
    """Under the name it has elsewhere."""
    shutil.copytree(Path(pilotlight.__file__).parent / "builtin/pilot-onnx", tmp_path, dirs_exist_ok=True)
    assert run("fit", name).stdout.startswith(f"{tmp_path.name}: onnx folder, ")


@pytest.mark.parametrize("command", [("fit",), ("serve", "--model")])
def test_what_has_no_name_for_a_model_is_one_line(run: Run, command: tuple[str, ...]) -> None:
    """The root of all folders."""
    result = run(*command, "/")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("pilotlight: / has no name that a model can have; ")
    assert result.stderr.count("\n") == 1


def test_a_report_is_plain(run: Run, tmp_path: Path) -> None:
    """Names of files are a stranger's, and some of what is in them."""
    (tmp_path / "a\x1b]0;title\x07.gguf").write_bytes(PUBLISHED["Qwen3 0.6B"].header())
    assert run("fit", "a\x1b]0;title\x07.gguf").stdout.startswith("a]0;title: qwen3, ")


def test_what_is_no_model_is_one_line(run: Run, tmp_path: Path) -> None:
    """Damaged, or not there."""
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    result = run("fit", "bad.gguf")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("pilotlight: bad.gguf: GGUF version")
    assert run("fit", "pilto").stderr == "pilotlight: no model is named 'pilto'; did you mean 'pilot'?\n"


SIZES = {"small-Q4_0.gguf": 770, "middle-Q8_0.gguf": 1300, "large-F16.gguf": 2500, "mmproj-F16.gguf": 900}
"""What the hub says of its files, in millions of bytes."""


@pytest.fixture
def hub() -> Iterator[str]:
    """A server that tells of one repository, and begins to send each of its files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "/api/models/someone/model" in self.path:
            siblings = [{"rfilename": name, "size": size * 10**6} for name, size in SIZES.items()]
            self._say(
                200, json.dumps({"id": "someone/model", "sha": "f" * 40, "siblings": siblings}).encode()
            )
        elif "/resolve/" in self.path:
            bad = b"GGUF\x03\x00\x00\x00" + b"\xff" * 16
            self._say(200, bad if "large" in self.path else PUBLISHED["Llama 3.2 1B"].header() + bytes(10**6))
        else:
            self._say(401, b"{}", X_Error_Code="RepoNotFound")

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # the header was enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def test_the_best_file_of_a_repository_that_fits_is_chosen(run: Run, hub: str) -> None:
    """By one header and the sizes of all; a projector is no model."""
    result = run("fit", "someone/model", "--within", "2.5GB", HF_ENDPOINT=hub)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if ".gguf" in line and "fits:" not in line]
    assert [(row[0], row[7]) for row in rows] == [
        ("small-Q4_0.gguf", "yes"),
        ("middle-Q8_0.gguf", "yes"),
        ("large-F16.gguf", "no"),
    ]
    assert result.stdout.endswith("the best that fits: middle-Q8_0.gguf\n")


def test_one_file_of_a_repository_is_judged_alone(run: Run, hub: str) -> None:
    """Chosen by its quantization, as for a pull, or else by a part of its name."""
    results = [
        run("fit", f"someone/{name}", "--json", HF_ENDPOINT=hub).stdout
        for name in ("model:q8_0", "model@main:middle", "model:middle-Q8_0.gguf")
    ]
    assert results[0].partition('"machine"')[0] == results[1].partition('"machine"')[0]
    found = json.loads(results[2])
    assert found["subject"]["name"] == "middle-Q8_0.gguf"
    assert found["subject"]["bytes_weights"] == pytest.approx(1300 * 10**6, rel=0.01)


def test_what_the_hub_does_not_have_is_one_line(run: Run, hub: str) -> None:
    """No such repository, no such file, or a header that is hostile."""
    no_repo = run("fit", "someone/else", HF_ENDPOINT=hub)
    assert no_repo.stderr.startswith("pilotlight: the hub has no someone/else, or it is private: then set")
    no_file = run("fit", "someone/model:q2_k", HF_ENDPOINT=hub)
    assert no_file.stderr == "pilotlight: someone/model has no GGUF file that 'q2_k' means\n"
    hostile = run("fit", "someone/model:large", HF_ENDPOINT=hub)
    assert "large-F16.gguf: 18446744073709551615 tensors, more than" in hostile.stderr
    nobody = run("fit", "someone/model", HF_ENDPOINT="http://127.0.0.1:1")
    assert nobody.stderr.startswith("pilotlight: the hub does not answer (")


@pytest.mark.parametrize(
    ("within", "is_enough"), [("100%", True), ("2g", True), ("30MiB", False), ("1e3", None)]
)
def test_the_memory_it_may_take_is_written_as_in_the_settings(
    run: Run, tiny_gguf: Path, within: str, is_enough: bool | None
) -> None:
    """Bytes or a part of the machine; what is neither is told with what would be right."""
    result = run("fit", str(tiny_gguf), "--within", within)
    assert result.returncode == {True: 0, False: 1, None: 2}[is_enough]
    assert is_enough is not None or "'1e3' must be bytes (\"2GiB\"" in result.stderr
