"""LoRA adapters through the whole daemon."""

from pathlib import Path

from gguf_factory import write_lora
from serving import serving, table

SHAPES = {f"blk.{layer}.ffn_down.weight": (64, 128) for layer in range(2)}


def test_a_model_is_served_with_its_adapters(tmp_path: Path, tiny_gguf: Path) -> None:
    """Wrong ones are an error for who asks, before a worker starts; nobody else notices."""
    good = write_lora(tmp_path / "good.gguf", SHAPES)
    wrong = write_lora(tmp_path / "wrong.gguf", SHAPES, architecture="qwen2")
    other = write_lora(tmp_path / "other.gguf", {"blk.7.ffn_down.weight": (64, 128)})
    loras = {
        "plain": [],
        "with": [{"path": str(good), "scale": 4.0}],
        "wrong": [{"path": str(wrong)}],
        "other": [{"path": str(other)}],
        "gone": [{"path": "gone.gguf"}],
    }
    models = "".join(
        table(name, tiny_gguf, threads=1) + "".join(_table(lora) for lora in loras[name]) for name in loras
    )
    with serving(tmp_path, models=models) as daemon:
        said = {name: daemon.post(name, max_tokens=8, temperature=0).json() for name in loras}
        texts = {said[name]["choices"][0]["message"]["content"] for name in ("plain", "with")}
        assert len(texts) == 2
        errors = {name: said[name]["error"]["message"] for name in ("wrong", "other", "gone")}
        assert errors["wrong"].startswith(
            "wrong: the LoRA adapter wrong.gguf is for models of the architecture"
        )
        assert "'blk.7.ffn_down.weight' does not exist in base model" in errors["other"]
        assert errors["gone"] == f"gone: the LoRA adapter {tmp_path}/gone.gguf does not exist"
        settings = daemon.get("/admin/models/with").json()["settings"]
        assert [(one["path"], one["scale"]) for one in settings["lora"]] == [(str(good), 4.0)]
        assert daemon.model("plain")["state"] == "ready"
    assert not (daemon.state_dir / "ladder.json").exists()


def _table(lora: dict[str, object]) -> str:
    values = "".join(f"{key} = {value!r}\n" for key, value in lora.items())
    return f"[[model.lora]]\n{values}"
