"""Whatever is sent, a 4xx in OpenAI's shape comes back, and the daemon and its worker go on."""

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import END_S, Daemon

PATHS = ("chat/completions", "completions")

HUGE = 10**400
BIG = 10**30
MEGABYTE = "x" * 2**20
TOO_LARGE = 100 * 10**6

BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t ",
    "text": b"hello",
    "cut": b'{"model": "tiny", "prompt": "a',
    "garbage after": b'{"model": "tiny", "prompt": "a"} x',
    "single quotes": b"{'model': 'tiny'}",
    "array": b"[]",
    "string": b'"tiny"',
    "number": b"1",
    "null": b"null",
    "nothing in it": b"{}",
    "UTF-16": json.dumps({"model": "tiny", "prompt": "a"}).encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"model": "tiny", "prompt": "a"}',
    "NUL bytes": bytes(1000),
    "NUL in a name": rb'{"model": "tiny", "prompt\u0000": "a"}',
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "compressed": gzip.compress(b'{"model": "tiny", "prompt": "a"}'),
    "a form": b"model=tiny&prompt=a",
}

TEXTS: dict[str, bytes] = {
    "invalid UTF-8": b"\xff\xfe",
    "cut UTF-8": b"\xe2\x82",
    "overlong UTF-8": b"\xc0\x80",
    "surrogate in UTF-8": b"\xed\xa0\x80",
    "NUL": b"a\x00b",
    "escaped NUL": rb"a\u0000b",
    "line break": b"a\nb",
    "lone surrogate": rb"\ud800",
    "surrogates in the wrong order": rb"\udfff\ud800",
    "no escape": rb"\x41",
}

VALUES: dict[str, bytes] = {
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "1e999": b"1e999",
    "hexadecimal": b"0x1",
    "leading zero": b"01",
    "half a word": b"tru",
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "quite deep arrays": b"[" * 150 + b"]" * 150,
    "open arrays": b"[" * 100_000,
}

FIELDS: dict[str, tuple[Any, ...]] = {
    "model": (5, None, True, "", [], {}, MEGABYTE, "../../etc/passwd", "tiny\n"),
    "max_tokens": (0, -1, 1.5, "10", True, [], BIG, -BIG, HUGE, 1e308),
    "n": (0, -1, 2.5, "2", 10**9, BIG, 129, 20),
    "temperature": (-1, -0.01, 2.01, "hot", True, [], {}, 1e308, BIG, HUGE),
    "top_p": (-0.1, 1.1, "x", 1e308),
    "top_k": (-5, 1.5, "x", BIG),
    "min_p": (-1, 2, "x"),
    "typical_p": (-1, 2, "x"),
    "repeat_penalty": (-1, 1e308, "x"),
    "presence_penalty": (-3, 3, BIG, "x"),
    "frequency_penalty": (-3, 3, "x"),
    "seed": (1.5, "x", HUGE, -HUGE, []),
    "stop": (5, {}, [5], ["a"] * 10_000, [[]]),
    "stream": ("yes", 1, [], "true"),
    "stream_options": (5, [], {"include_usage": "x"}, {"include_usages": True}),
    "logit_bias": ([], 5, {"a": 1}, {"1": "x"}, {"1": 1000}, {"-1": 1}, {str(BIG): 1}, {"99999": 1}),
    "temprature": (1,),
    "": (1,),
    "ignore_eos": ("x", 2),
    "cache_prompt": ("x",),
    "logprobs": ("x", -1, BIG),
}

MESSAGES: tuple[Any, ...] = (
    None, 5, "hi", {}, [], [5], [None], [{}], [[]],
    [{"role": "user"}], [{"content": "x"}], [{"role": "a", "content": "x"}], [{"role": 5, "content": "x"}],
    [{"role": "user", "content": 5}], [{"role": "user", "content": {}}], [{"role": "user", "content": [5]}],
    [{"role": "user", "content": [{"type": "nope"}]}], [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}],
    [{"role": "user", "content": "x", "contents": "y"}], [{"role": "user", "content": "long " * 5000}],
)  # fmt: skip

PROMPTS: tuple[Any, ...] = (
    None, 5, {}, [], [[]], [1, "a"], [-1], [1.5], [BIG], [HUGE], [99_999], [True], [["a"]], "",
    "long " * 5000,
)  # fmt: skip


@pytest.fixture(scope="module")
def client(shared: Daemon) -> Iterator[httpx.Client]:
    """One connection for all; the model is loaded, so that bodies reach it if nothing stops them."""
    assert shared.post("tiny", max_tokens=1).status_code == 200
    with httpx.Client(base_url=f"{shared.url}/v1/", timeout=END_S) as client:
        yield client


def assert_refused(answer: httpx.Response) -> None:
    """A client error in OpenAI's shape, from a daemon that serves the next request."""
    assert 400 <= answer.status_code < 500, answer.text[:500]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "source"}
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) < 1000
    assert isinstance(error["type"], str)


def assert_serves(client: httpx.Client) -> None:
    """A good request is answered, by the same worker as ever."""
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
    assert client.post("completions", json=body).status_code == 200
    metrics = client.get(str(client.base_url).replace("/v1/", "/metrics")).text
    assert 'pilotlight_worker_restarts_total{model="tiny"} 0.0' in metrics


def question(path: str, text: str = "a") -> dict[str, Any]:
    """A good body."""
    asked = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    return {"model": "tiny", "max_tokens": 1, **asked}


def dumped(body: dict[str, Any]) -> bytes:
    """JSON, with integers of any length."""
    return json.dumps(body).encode()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_no_json_object(client: httpx.Client, path: str, case: str) -> None:
    """Broken JSON, broken text, or JSON that is something else."""
    assert_refused(client.post(path, content=BODIES[case], headers={"content-type": "application/json"}))
    assert_serves(client)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", TEXTS)
def test_text_that_is_none(client: httpx.Client, path: str, case: str) -> None:
    """Nothing is guessed, replaced or cut off at the NUL."""
    good = dumped(question(path, "TEXT"))
    assert_refused(client.post(path, content=good.replace(b"TEXT", TEXTS[case])))
    assert_serves(client)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_is_none(client: httpx.Client, path: str, case: str) -> None:
    """What some JSON parsers take and what would exhaust others."""
    good = dumped(question(path) | {"temperature": "VALUE"})
    assert_refused(client.post(path, content=good.replace(b'"VALUE"', VALUES[case])))
    assert_serves(client)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_wrong_type_or_size(client: httpx.Client, path: str, field: str) -> None:
    """Negative, huge, fractional, of another type, or unknown."""
    for value in FIELDS[field]:
        assert_refused(client.post(path, content=dumped(question(path) | {field: value})))
    assert_serves(client)


@pytest.mark.parametrize(("path", "field", "values"), [
    ("chat/completions", "messages", MESSAGES), ("completions", "prompt", PROMPTS),
])  # fmt: skip
def test_what_is_asked_in_no_known_form(
    client: httpx.Client, path: str, field: str, values: tuple[Any, ...]
) -> None:
    """Messages and prompts that are none, or do not fit the context."""
    for value in values:
        assert_refused(client.post(path, content=dumped({"model": "tiny", "max_tokens": 1, field: value})))
    assert_serves(client)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "chunked"])
def test_a_body_of_100_megabytes(client: httpx.Client, is_chunked: bool) -> None:
    """Sent to its end by a client that expects its answer after that; the daemon keeps none of it."""
    pieces = [b" " * 10**6] * (TOO_LARGE // 10**6)
    answer = client.post("completions", content=iter(pieces) if is_chunked else b"".join(pieces))
    assert_refused(answer)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert_serves(client)


def test_a_body_that_announces_its_size_is_refused_unread(shared: Daemon, client: httpx.Client) -> None:
    """The answer does not wait for what would be thrown away."""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {TOO_LARGE}\r\n\r\n"
    with socket.create_connection(shared.address, timeout=END_S) as sock:
        sock.sendall(head.encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert_serves(client)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_content_type_that_pages_may_send_unasked(client: httpx.Client, kind: str) -> None:
    """From a page of this machine: JSON must be called JSON, or a form could do it."""
    headers = {"content-type": kind, "origin": "http://localhost:3000"}
    assert_refused(client.post("completions", content=b'{"model": "tiny", "prompt": "a"}', headers=headers))


@pytest.mark.parametrize("path", [*PATHS, "models", "nothing", "models/none", "%00", "models/%ff%00"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_a_method_or_path_that_is_not_there(client: httpx.Client, method: str, path: str) -> None:
    """404 or 405, never anything else."""
    if (method, path) != ("GET", "models"):
        answer = client.request(method, path)
        assert_refused(answer)
        assert answer.status_code in (404, 405)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"BREW /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["NUL", "TLS", "method", "version", "negative length", "two lengths", "bad chunk"],
)
def test_what_is_no_http_is_refused_or_cut_off(shared: Daemon, client: httpx.Client, raw: bytes) -> None:
    """There is no request to answer in any shape, only a connection to close."""
    with socket.create_connection(shared.address, timeout=END_S) as sock:
        sock.sendall(raw)
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert_serves(client)
