"""What a stranger's file of requests may hold, and how it is told what is wrong with it."""

import json
from pathlib import Path

import msgspec
import pytest
from fake_inference import CHAT, line

from pilotlight.batch import lines
from pilotlight.batch.lines import Input, scan
from pilotlight.batch.records import LONGEST_MESSAGE, Fault

LIMIT = 4096


def scanned(path: Path, content: bytes) -> lines.Scan:
    path.write_bytes(content)
    return scan(path, CHAT, LIMIT)


def test_requests_are_found_where_they_begin(tmp_path: Path) -> None:
    """Whatever the line ends are, and without what is blank."""
    path = tmp_path / "in"
    content = "\ufeff" + line("a") + "\n  \r\n" + line("b").replace("\n", "\r\n") + line("c").strip()
    found = scanned(path, content.encode())
    assert found.faults == []
    with Input(path, found, CHAT) as requests:
        assert [requests[number].custom_id for number in (2, 0, 1)] == ["c", "a", "b"]
        assert json.loads(bytes(requests[1].body))["messages"][0]["content"] == "b"
    assert found.models == {"echo": 1}


def test_requests_are_told_by_model(tmp_path: Path) -> None:
    """As far as they are asked for: each model in its turn, and its requests in theirs."""
    path = tmp_path / "in"
    content = "\n".join(line(f"r{number}", body={"model": model}) for number, model in enumerate("babcab"))
    found = scanned(path, content.encode())
    assert found.models == {"b": 1, "a": 3, "c": 7}
    with Input(path, found, CHAT) as requests:
        assert requests.by_model(range(6)) == [0, 2, 5, 1, 4, 3]
        assert requests.by_model([1, 2, 3, 5]) == [2, 5, 1, 3]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"[]", "invalid_request"),
        (b"\0\0", "invalid_json_line"),
        (line("x").strip().encode("utf-16"), "invalid_json_line"),
        (b'{"body":' + b"[" * 3000, "invalid_json_line"),
        (line("x", body={"model": "echo", "a": "DEEP"}).replace('"DEEP"', "[" * 900 + "]" * 900).encode(),
         "invalid_json_line"),
        (line("x").replace('"x"', '"\\ud800"', 1).encode(), "invalid_json_line"),
        (line("x", body={"model": "é"}).encode().replace(b"\\u00e9", b"\xff"), "invalid_json_line"),
        (line("x", body={"model": "echo", "top_p": 1}).replace("1", "NaN").encode(), "invalid_json_line"),
        (line("x", padding="y" * LIMIT).encode(), "line_too_long"),
        (line("x", extra=1).encode(), "invalid_request"),
        (line("").encode(), "invalid_custom_id"),
        (line("x" * 513).encode(), "invalid_custom_id"),
        (line("x", custom_id=1).encode(), "invalid_request"),
        (line("x", method="GET").encode(), "invalid_method"),
        (line("x", url="/v1/embeddings").encode(), "mismatched_endpoint"),
        (line("x", body=[]).encode(), "invalid_request"),
        (line("x", body={}).encode(), "missing_required_parameter"),
        (line("good").encode(), "duplicate_custom_id"),
    ],
)  # fmt: skip
def test_a_bad_line_is_told_by_its_number(tmp_path: Path, bad: bytes, code: str) -> None:
    """And the lines around it are read all the same."""
    content = line("good").encode() + b"\n" + bad.strip(b"\n") + b"\n" + line("y").encode()
    found = scanned(tmp_path / "in", content)
    ((fault),) = found.faults
    assert (fault.code, fault.line) == (code, 3)
    assert len(found.offsets) == 2


def test_a_fault_does_not_repeat_a_whole_line(tmp_path: Path) -> None:
    """Its message is kept for weeks; one that a record says is cut, too."""
    (fault,) = scanned(tmp_path / "in", line("x", **{"y" * 3000: 1}).encode()).faults
    assert fault.message.startswith("the line is no request: Object contains unknown field `yyy")
    assert len(fault.message) == LONGEST_MESSAGE
    record = msgspec.json.encode({"code": "x", "message": "y" * 3000})
    assert len(msgspec.json.decode(record, type=Fault).message) == LONGEST_MESSAGE


@pytest.mark.parametrize("content", [b"", b"\n\r\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_requests_is_refused(tmp_path: Path, content: bytes) -> None:
    """Blank lines are none."""
    assert [fault.code for fault in scanned(tmp_path / "in", content).faults] == ["empty_file"]


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    """OpenAI's limit."""
    content = "".join(line(f"r{number}") for number in range(lines.MAX_LINES + 1))
    (fault,) = scanned(tmp_path / "in", content.encode()).faults
    assert fault.code == "too_many_requests"


def test_a_file_of_nothing_but_faults_is_not_read_to_its_end(tmp_path: Path) -> None:
    """The first hundred say enough."""
    assert len(scanned(tmp_path / "in", b"{\n" * 5000).faults) == lines.MAX_FAULTS
