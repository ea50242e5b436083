"""Which files of a repository make a model."""

import pytest

from pilotlight.errors import BadRequest
from pilotlight.store.selection import choose, quantization

REPO = "owner/name"

GGUF = [
    "README.md",
    "name-Q4_K_M.gguf",
    "name-Q8_0.gguf",
    "mmproj-name-f16.gguf",
    "name-MMPROJ-f32.gguf",
    "name.imatrix.gguf",
    "BF16/name-BF16-00001-of-00002.gguf",
    "BF16/name-BF16-00002-of-00002.gguf",
]
MLX = [
    "README.md",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "consolidated.safetensors",
    "modeling_name.py",
    "pytorch_model.bin",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "original/model.safetensors",
]
ONNX = [
    "config.json",
    *(
        f"cpu/int4/{name}"
        for name in ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "run.py")
    ),
    *(f"cuda/fp16/{name}" for name in ("genai_config.json", "model.onnx", "model.onnx_data")),
]


@pytest.mark.parametrize(
    ("pick", "label", "files"),
    [
        ("", "Q4_K_M", ["name-Q4_K_M.gguf"]),
        ("q8_0", "Q8_0", ["name-Q8_0.gguf"]),
        ("name-Q8_0.gguf", "Q8_0", ["name-Q8_0.gguf"]),
        ("bf16", "BF16", GGUF[-2:]),
        (GGUF[-2], "BF16", GGUF[-2:]),
    ],
)
def test_a_gguf_is_picked(pick: str, label: str, files: list[str]) -> None:
    """By quantization or file; all parts of it, and no projector or importance matrix."""
    choice = choose(REPO, pick, GGUF)
    assert (choice.label, list(choice.files)) == (label, files)
    assert choice.entry == files[0].rpartition("/")[2]


def test_what_is_not_there_lists_what_is() -> None:
    """By the names that can be given."""
    with pytest.raises(
        BadRequest, match=r"has no 'Q2_K'; there is: BF16, Q4_K_M, Q8_0\. Pull one as owner/name:N"
    ):
        choose(REPO, "Q2_K", GGUF)


def test_a_repository_of_thousands_is_told_in_part() -> None:
    """Names may be as long as their owner likes, and as many."""
    files = [f"{number:06}{'a' * 300}.gguf" for number in range(6000)]
    with pytest.raises(BadRequest, match=r"there is: 000000a.* and 5900 more\. Pull one") as caught:
        choose(REPO, "", files)
    assert len(caught.value.message) < 25_000
    with pytest.raises(BadRequest) as caught:
        choose(REPO, "", [f"{'a' * 10**6}-00001-of-00002.gguf"])
    assert len(caught.value.message) < 300


def test_several_without_the_usual_one_must_be_picked() -> None:
    """A choice is not made in silence."""
    with pytest.raises(BadRequest, match="has several models; there is: Q2_K, Q8_0"):
        choose(REPO, "", ["a-Q2_K.gguf", "a-Q8_0.gguf"])


def test_files_of_one_quantization_go_by_their_names() -> None:
    """Two models in one repository."""
    files = ["small-Q8_0.gguf", "large-Q8_0.gguf"]
    assert choose(REPO, "large-Q8_0.gguf", files).label == "large-Q8_0.gguf"
    with pytest.raises(BadRequest, match=r"has several models; there is: large-Q8_0\.gguf, small-Q8_0\.gguf"):
        choose(REPO, "Q8_0", files)


def test_missing_parts_are_told() -> None:
    """Of the one that is picked; others may be had."""
    with pytest.raises(BadRequest, match="lacks 1 parts of BF16"):
        choose(REPO, "BF16", GGUF[:-1])
    assert choose(REPO, "Q8_0", GGUF[:-1]).files == ("name-Q8_0.gguf",)


def test_an_mlx_folder_is_what_its_runtime_reads() -> None:
    """No code, no pickles, no other copies of the weights."""
    choice = choose(REPO, "", MLX)
    unread = {
        "README.md",
        "consolidated.safetensors",
        "modeling_name.py",
        "pytorch_model.bin",
        "tokenizer.model",
    }
    assert set(choice.files) == set(MLX) - unread - {"original/model.safetensors"}
    assert (choice.label, choice.entry) == ("", "")


def test_an_onnx_folder_is_picked_by_its_name() -> None:
    """Or by the end of it."""
    for pick in ("cpu/int4", "int4"):
        choice = choose(REPO, pick, ONNX)
        assert (choice.label, choice.folder) == ("cpu/int4", "cpu/int4")
        assert sorted(choice.files) == sorted(ONNX[1:5])
    with pytest.raises(BadRequest, match="there is: cpu/int4, cuda/fp16"):
        choose(REPO, "", ONNX)


def test_a_repository_without_a_model_is_told() -> None:
    """Pickles are no model."""
    with pytest.raises(BadRequest, match="owner/name has no GGUF file and no ONNX or MLX folder"):
        choose(REPO, "", ["config.json", "pytorch_model.bin"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q8_0.gguf", "Q8_0"),
        ("gemma-3-4b-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("model.IQ2_XXS.gguf", "IQ2_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("name-f16.gguf", "F16"),
        ("name-fp16.gguf", "FP16"),
        ("name-FP32.gguf", "FP32"),
        ("name-NVFP4.gguf", "NVFP4"),
        ("name-TQ1_0.gguf", "TQ1_0"),
        ("ggml-model-i2_s.gguf", ""),
        ("pilot.gguf", ""),
    ],
)
def test_a_quantization_is_read_from_a_name(name: str, expected: str) -> None:
    """As people write them."""
    assert quantization(name) == expected
