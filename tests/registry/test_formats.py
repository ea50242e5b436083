"""Which runtime runs what a path leads to."""

from pathlib import Path

from pilotlight.registry.formats import runtime_of


def test_a_file_is_for_llama_cpp(tmp_path: Path) -> None:
    """Whatever its name; it says itself whether it can read it."""
    for name in ("m.gguf", "m"):
        (tmp_path / name).write_bytes(b"")
        assert runtime_of(tmp_path / name) == "llamacpp"


def test_a_folder_with_a_genai_config_is_for_onnx(tmp_path: Path) -> None:
    """The one file that every export has."""
    (tmp_path / "genai_config.json").write_text("{}")
    assert runtime_of(tmp_path) == "onnx"


def test_a_folder_with_a_config_is_for_mlx(tmp_path: Path) -> None:
    """Unless it is an export, which may have one as well."""
    (tmp_path / "config.json").write_text("{}")
    assert runtime_of(tmp_path) == "mlx"
    (tmp_path / "genai_config.json").write_text("{}")
    assert runtime_of(tmp_path) == "onnx"


def test_what_nobody_knows_is_for_the_default(tmp_path: Path) -> None:
    """It tells what it expected when the model is asked for: nothing else need wait for that."""
    assert runtime_of(tmp_path) == runtime_of(tmp_path / "none") == "llamacpp"
