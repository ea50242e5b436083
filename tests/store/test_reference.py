"""What people write to say which model they mean."""

import pytest

from pilotlight.errors import BadRequest
from pilotlight.store.reference import HubReference, UrlReference, parse

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubReference("owner/name")),
        ("owner/name:Q4_K_M", HubReference("owner/name", pick="Q4_K_M")),
        (
            "owner/name:sub/file-00001-of-00002.gguf",
            HubReference("owner/name", pick="sub/file-00001-of-00002.gguf"),
        ),
        ("owner/name@v1.0:Q8_0", HubReference("owner/name", "v1.0", "Q8_0")),
        ("hf.co/owner/name:Q8_0", HubReference("owner/name", pick="Q8_0")),
        ("hf://owner/name", HubReference("owner/name")),
        ("https://huggingface.co/owner/name/", HubReference("owner/name")),
        (
            "https://huggingface.co/owner/name/resolve/main/a%20b.gguf?download=true",
            HubReference("owner/name", pick="a b.gguf"),
        ),
        ("https://hf.co/owner/name/blob/v1/a.gguf", HubReference("owner/name", "v1", "a.gguf")),
        (
            f"https://host/a/b.gguf?key=1#sha256={SHA.upper()}",
            UrlReference("https://host/a/b.gguf?key=1", SHA),
        ),
    ],
)
def test_a_reference_is_understood(text: str, expected: object) -> None:
    """And written in one way, which is understood as the same."""
    found = parse(text)
    assert found == expected
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name", "is nothing to pull: give owner/name"),
        ("a/b/c", "is nothing to pull"),
        ("../b", "is nothing to pull"),
        ("a--b/c", "is nothing to pull"),
        ("owner/name:../x.gguf", "is refused"),
        ("owner/name: ", "is nothing to pull"),
        (
            "https://host/a.gguf",
            r"needs the SHA-256 of the file, in hexadecimal: https://host/a.gguf#sha256=",
        ),
        ("https://host/a.gguf?key=secret#sha256=12", r"https://host/a.gguf#sha256"),
        (f"ftp://host/a.gguf#sha256={SHA}", "ftp:// is not downloaded from"),
        (f"file:///etc/passwd#sha256={SHA}", "file:// is not downloaded from"),
        (f"https://me:word@host/a.gguf#sha256={SHA}", "a URL with a password is refused"),
        (f"http://me:word@[bad/a.gguf?key=secret#sha256={SHA}", "has no host that there can be"),
        (f"http://me:word@h\u2100/a.gguf#sha256={SHA}", "has no host that there can be"),
        (f"https://host/a.zip#sha256={SHA}", "is no GGUF file"),
        (f"https://host/..%2Fa.gguf#sha256={SHA}", "is refused"),
        (
            "https://huggingface.co/a/b/resolve/main/x.gguf?token=secret",
            "^'https://huggingface.co/a/b/resolve/main/x.gguf' is nothing to pull",
        ),
        ("hf.co/a/b:x.gguf?token=secret", "^'hf.co/a/b:x.gguf' is nothing to pull"),
        ("hf.co/a/b@main?token=secret", "^'hf.co/a/b@main' is nothing to pull"),
        ("https://hf.co/a/b/resolve/main?token=secret/x.gguf", "is nothing to pull"),
        ("hf://me:word@hf.co/a/b", "^'hf://...@hf.co/a/b' is nothing to pull"),
        ("me:word@hf.co/a/b", "^'...@hf.co/a/b' is nothing to pull"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    """With what would be right, and without what may be a secret."""
    with pytest.raises(BadRequest, match=message) as caught:
        parse(text)
    assert "secret" not in caught.value.message and "word@" not in caught.value.message
