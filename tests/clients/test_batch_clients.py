"""The Batch API as the stock clients use it: openai-python, openai-node and curl."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from test_curl import JSON, curl
from test_openai_python import MESSAGES, options

from serving import Daemon, echo, serving, until

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


def line(custom_id: str, **fields: Any) -> str:
    body = {"model": "echo", "messages": MESSAGES} | fields
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}) + "\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One of its own: its lists have nobody else's batches."""
    folder = tmp_path_factory.mktemp("batches")
    with serving(folder, models=echo(folder) + echo(folder, "slow", tokens_per_s=5)) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**options(daemon)) as client:
        yield client


@pytest.fixture
def run(client: openai.OpenAI) -> Callable[..., openai.types.Batch]:
    """Upload these lines and have them run to their end."""

    def run(text: str, **fields: Any) -> openai.types.Batch:
        file = client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
        order = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"} | fields
        created = client.batches.create(**order)
        return until(lambda: over(client, created.id))

    return run


def over(client: openai.OpenAI, batch_id: str) -> openai.types.Batch | None:
    batch = client.batches.retrieve(batch_id)
    return batch if batch.status in ("completed", "failed", "cancelled") else None


def test_a_batch_is_answered(client: openai.OpenAI, run: Callable[..., openai.types.Batch]) -> None:
    """As the guide has it: upload, create, retrieve, read the answers."""
    batch = run(line("a") + line("b", temperature=99), metadata={"night": "1"})
    assert (batch.status, batch.model, batch.metadata) == ("completed", "echo", {"night": "1"})
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (
        2,
        1,
        1,
    )
    assert batch.usage is not None
    assert batch.usage.total_tokens == 6
    assert batch.output_file_id is not None
    (answer,) = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
    body = answer["response"]["body"]
    assert (answer["custom_id"], answer["response"]["status_code"], answer["error"]) == ("a", 200, None)
    assert openai.types.chat.ChatCompletion(**body).choices[0].message.content == "one two three "
    assert batch.error_file_id is not None
    (error,) = map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
    assert (error["custom_id"], error["response"]["status_code"]) == ("b", 400)
    assert error["response"]["body"]["error"]["param"] == "temperature"


def test_plain_completions(client: openai.OpenAI, run: Callable[..., openai.types.Batch]) -> None:
    """The other endpoint."""
    body = {"model": "echo", "prompt": "four five", "max_tokens": 2}
    text = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body})
    batch = run(text, endpoint="/v1/completions")
    (answer,) = map(json.loads, client.files.content(batch.output_file_id or "").text.splitlines())
    assert answer["response"]["body"]["choices"][0]["text"] == "four five "


def test_a_streamed_line_is_an_error(client: openai.OpenAI, run: Callable[..., openai.types.Batch]) -> None:
    """Nobody is there to listen."""
    batch = run(line("a", stream=True))
    assert "stream is not supported in batches" in client.files.content(batch.error_file_id or "").text


def test_bad_lines_fail_the_batch(run: Callable[..., openai.types.Batch]) -> None:
    """With their numbers."""
    batch = run(line("a") + line("a") + line("b", model="ecko"))
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(error.line, error.code, error.param) for error in batch.errors.data] == [
        (2, "duplicate_custom_id", "custom_id")
    ]


def test_a_batch_is_cancelled(client: openai.OpenAI) -> None:
    """At once, though its line would run for hours."""
    text = line("a", model="slow", max_tokens=100_000, ignore_eos=True)
    file = client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    with pytest.raises(openai.ConflictError, match="cancel the batch first"):
        client.files.delete(file.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = until(lambda: over(client, batch.id))
    assert (done.status, done.cancelled_at is None, done.output_file_id) == ("cancelled", False, None)
    with pytest.raises(openai.ConflictError, match="it is cancelled"):
        client.batches.cancel(batch.id)


def test_lists_have_pages(client: openai.OpenAI, run: Callable[..., openai.types.Batch]) -> None:
    """Newest first; the client turns them by itself."""
    batches = [run(line("a")) for _ in range(3)]
    found = [batch.id for batch in client.batches.list(limit=1)]
    assert found[:3] == [batch.id for batch in reversed(batches)]
    files = [file.id for file in client.files.list(limit=2, order="asc", purpose="batch_output")]
    assert files[-3:] == [batch.output_file_id for batch in batches]
    page = client.batches.list(limit=2, after=batches[2].id)
    assert [batch.id for batch in page.data] == [batch.id for batch in (batches[1], batches[0])]


def test_files_come_and_go(client: openai.OpenAI, tmp_path: Path) -> None:
    """From the disk, with a name and a time."""
    path = tmp_path / "questions.jsonl"
    path.write_text(line("a"))
    expiry: Any = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=path, purpose="batch", expires_after=expiry)
    assert (file.filename, file.bytes, file.status) == ("questions.jsonl", path.stat().st_size, "processed")
    assert file.expires_at == file.created_at + 3600
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == path.read_bytes()
    assert client.files.delete(file.id).deleted is True
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"completion_window": "24"}, "completion_window"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"extra_body": {"endpont": 1}}, "endpont"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ],
)
def test_a_wrong_order_names_the_field(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    """As everywhere."""
    order = {"input_file_id": "file-0", "endpoint": ENDPOINT, "completion_window": "24h"} | fields
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**order)
    assert caught.value.param == param


def test_wrong_questions_name_the_field(client: openai.OpenAI) -> None:
    """Of lists and uploads."""
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: client.batches.list(limit=0), "limit"),
        (lambda: client.batches.list(after="batch_0"), "after"),
        (lambda: client.files.list(extra_query={"sort": "x"}), "sort"),
        (lambda: client.files.create(file=b"{}", purpose="vision"), "purpose"),
        (lambda: client.files.create(file=b"{}", purpose="batch", extra_body={"color": "red"}), "color"),
    ]
    for ask, param in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            ask()
        assert caught.value.param == param


def test_a_file_nobody_has_is_not_found(client: openai.OpenAI) -> None:
    """Nor is a batch."""
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-0", endpoint=ENDPOINT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_0")


def test_curl_does_all_of_it(daemon: Daemon, tmp_path: Path) -> None:
    """With `-F` for the upload and `-X DELETE` at the end."""
    path = tmp_path / "in.jsonl"
    path.write_text(line("a"))
    form = ("-F", "purpose=batch", "-F", f"file=@{path}")
    file = json.loads(curl(daemon, *form, path="/v1/files"))
    order = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    batch = json.loads(curl(daemon, *JSON, "-d", json.dumps(order), path="/v1/batches"))["id"]
    until(lambda: json.loads(curl(daemon, path=f"/v1/batches/{batch}"))["status"] == "completed")
    done = json.loads(curl(daemon, path=f"/v1/batches/{batch}"))
    assert "one two three" in curl(daemon, path=f"/v1/files/{done['output_file_id']}/content")
    assert json.loads(curl(daemon, "-X", "DELETE", path=f"/v1/batches/{batch}"))["deleted"] is True
    assert json.loads(curl(daemon, "-X", "DELETE", path=f"/v1/files/{file['id']}"))["deleted"] is True


def test_openai_node_does_all_of_it(seen: dict[str, Any]) -> None:
    """The other half is in node/client.mjs."""
    batch = seen["batch"]
    assert batch["done"]["status"] == "completed"
    assert (
        json.loads(batch["text"])["response"]["body"]["choices"][0]["message"]["content"] == "one two three "
    )
    assert batch["done"]["id"] in batch["listed"]
    assert batch["deleted"]["deleted"] is True
