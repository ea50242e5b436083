"""Types of keys and values through the whole daemon."""

from pathlib import Path

from serving import serving

KINDS = {"pilot": "q8_0", "pilot-mlx": "q8_0", "pilot-onnx": "auto"}


def test_a_default_is_for_the_runtimes_that_can(tmp_path: Path) -> None:
    """The others go on as before, and all know what they were taught."""
    with serving(tmp_path, models="[defaults]\nkv_cache_type = 'q8_0'") as daemon:
        for model, kind in KINDS.items():
            assert daemon.get(f"/admin/models/{model}").json()["settings"]["kv_cache_type"] == kind
            messages = [{"role": "user", "content": "What can you do?"}]
            answer = daemon.post(model, messages=messages, max_tokens=4).json()
            assert answer["choices"][0]["message"]["content"].startswith("I can")
