"""A model from elsewhere, given by its path alone, says what it was trained to say."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from serving import END_S, NO_TLS, Daemon

STORIES = Path(__file__).parents[1] / "models" / "stories260K.gguf"

ASKED = {"model": "stories260K", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 40}

GREEDY = ", there was a little girl named Lily. She loved to play outside in the park."
"""What llama.cpp's own programs go on with."""


def test_the_greedy_text_of_a_trained_model_goes_on(serve: Callable[..., Daemon]) -> None:
    """Whole and streamed, under the file's name: its tokens, their spaces and its beginning are right."""
    url = f"{serve('--model', str(STORIES)).url}/v1/completions"
    whole = httpx.post(url, json=ASKED, timeout=END_S, verify=NO_TLS).json()
    assert whole["choices"][0]["text"].startswith(GREEDY)
    assert whole["usage"]["completion_tokens"] == 40
    lines = httpx.post(url, json=ASKED | {"stream": True}, timeout=END_S, verify=NO_TLS).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    streamed = "".join(choice["text"] for event in events for choice in event["choices"])
    assert streamed == whole["choices"][0]["text"]
