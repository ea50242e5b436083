"""Models: those of the configuration, named on the command line, and pulled."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pilotlight.config import check_preload, model_at, models, unpulled
from pilotlight.core import Lora, RequestClass
from pilotlight.errors import ConfigError
from pilotlight.registry import memory
from pilotlight.registry.finder import Finder
from resolving import put, resolve
from store_factory import GGUF, ONNX, HuggingFace, write


def test_the_builtin_model_is_there_and_greedy(tmp_path: Path) -> None:
    """It answers on a fresh machine, the same every time."""
    pilot = models(resolve(tmp_path))[0]
    assert (pilot.name, pilot.sampling["temperature"]) == ("pilot", 0)


def test_a_runtime_that_is_not_named_is_found_by_the_path(tmp_path: Path) -> None:
    """In a table and on the command line; a folder is served under its name."""
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "genai_config.json").write_text("{}")
    text = "[[model]]\nname = 'a'\npath = 'exported'\n[[model]]\nname = 'b'\npath = 'b.gguf'"
    config = resolve(tmp_path, text, model=(str(tmp_path / "exported"),))
    assert {model.name: model.runtime for model in models(config)} == {
        "pilot": "llamacpp",
        "pilot-onnx": "onnx",
        "pilot-mlx": "mlx",
        "a": "onnx",
        "b": "llamacpp",
        "exported": "onnx",
    }


def test_the_builtin_model_can_be_switched_off(tmp_path: Path) -> None:
    """builtin = false."""
    assert models(resolve(tmp_path, "[server]\nbuiltin = false")) == []


def test_a_model_takes_the_defaults_it_does_not_set(tmp_path: Path) -> None:
    """0 is a value of its own: the worker chooses."""
    text = "[defaults]\ncontext = 512\nthreads = 3\n[[model]]\nname = 'm'\npath = 'm'\ncontext = 0"
    model = models(resolve(tmp_path, text))[-1]
    assert (model.context, model.threads, model.parallel) == (0, 3, 0)


def test_a_provider_must_be_one_of_the_runtime_s(tmp_path: Path) -> None:
    """Whether the machine has it, the worker knows."""
    text = "[[model]]\nname = 'm'\npath = 'm'\nruntime = 'onnx'\nprovider = "
    assert models(resolve(tmp_path, text + "'cuda'"))[-1].provider == "cuda"
    with pytest.raises(
        ConfigError, match="model 'm': provider 'gpu' is not supported by onnx; there is: auto, cpu"
    ):
        models(resolve(tmp_path, text + "'gpu'"))
    with pytest.raises(ConfigError, match=r"not supported by llamacpp; there is: auto$"):
        models(resolve(tmp_path, text.replace("onnx", "llamacpp") + "'cuda'"))


def test_a_cache_type_must_be_one_of_the_runtime_s(tmp_path: Path) -> None:
    """That of [defaults] is for those that know it."""
    text = "[[model]]\nname = 'm'\npath = 'm'\nruntime = 'mlx'\nkv_cache_type = "
    assert models(resolve(tmp_path, text + "'q4_0'"))[-1].loading.kv_cache_type == "q4_0"
    with pytest.raises(
        ConfigError, match="'m': kv_cache_type 'q5_0' is not supported by mlx; there is: auto, q8_0, q4_0"
    ):
        models(resolve(tmp_path, text + "'q5_0'"))
    with pytest.raises(ConfigError, match=r"kv_cache_type 'q8_0' is not supported by onnx; there is: auto$"):
        models(resolve(tmp_path, text.replace("mlx", "onnx") + "'q8_0'"))
    found = models(resolve(tmp_path, "[defaults]\nkv_cache_type = 'q5_1/f16'\n" + text + "'auto'"))
    assert {one.name: one.loading.kv_cache_type for one in found} == {
        "pilot": "q5_1/f16",
        "pilot-onnx": "auto",
        "pilot-mlx": "auto",
        "m": "auto",
    }


def test_mlx_keeps_keys_and_values_alike(tmp_path: Path) -> None:
    """Two types that it knows are refused in its table, and passed over in [defaults]."""
    text = "[[model]]\nname = 'm'\npath = 'm'\nruntime = 'mlx'\n"
    with pytest.raises(ConfigError, match="kv_cache_type 'q8_0/q4_0': mlx keeps keys and values in the same"):
        models(resolve(tmp_path, text + "kv_cache_type = 'q8_0/q4_0'"))
    for kind, expected in (("q8_0/q4_0", "auto"), ("q8_0/q8_0", "q8_0/q8_0")):
        found = models(resolve(tmp_path, f"[defaults]\nkv_cache_type = '{kind}'\n" + text))
        assert found[-1].loading.kv_cache_type == expected


def test_adapters_are_found_beside_the_file(tmp_path: Path) -> None:
    """In tables of their own or in one line; the runtime must know them."""
    (tmp_path / "b.gguf").touch()
    text = "[[model]]\nname = 'm'\npath = 'm'\nlora = [{path = 'a.gguf', scale = 0.5}]\nruntime = 'llamacpp'"
    more = "\n[[model]]\nname = 'n'\npath = 'n'\n[[model.lora]]\npath = 'b.gguf'"
    *_, one, other = models(resolve(tmp_path, text + more))
    assert one.loading.lora == (Lora(str(tmp_path / "a.gguf"), 0.5),)
    (lora,) = other.loading.lora
    assert (lora.path, lora.scale, lora.created > 0) == (str(tmp_path / "b.gguf"), 1.0, True)
    with pytest.raises(ConfigError, match="model 'm': lora is not supported by onnx"):
        models(resolve(tmp_path, text.replace("llamacpp", "onnx")))


@pytest.mark.parametrize("setting", ["mmap = true", "gpu_layers = 0"])
def test_how_a_file_is_loaded_only_some_runtimes_can_be_told(tmp_path: Path, setting: str) -> None:
    """Which ones, their capabilities say."""
    text = f"[[model]]\nname = 'm'\npath = 'm'\n{setting}\nruntime = "
    key, _, value = setting.partition(" = ")
    loading = models(resolve(tmp_path, text + "'llamacpp'"))[-1].loading
    assert str(getattr(loading, key)).lower() == value
    with pytest.raises(ConfigError, match=f"model 'm': {key} is not supported by mlx"):
        models(resolve(tmp_path, text + "'mlx'"))


@pytest.mark.parametrize(("text", "num_bytes"), [("'2GiB'", 2 * 2**30), ("1_000_000", 10**6)])
def test_a_model_may_have_a_cap_of_its_own(tmp_path: Path, text: str, num_bytes: int) -> None:
    """In bytes, however they are written; none if it says nothing."""
    table = f"[[model]]\nname = 'm'\npath = 'm'\nmemory = {text}"
    assert [model.memory for model in models(resolve(tmp_path, table))] == [None, None, None, num_bytes]


def test_a_cap_may_be_a_part_of_the_machine(tmp_path: Path) -> None:
    """What is free of it does not matter."""
    table = "[[model]]\nname = 'm'\npath = 'm'\nmemory = '25%'"
    assert models(resolve(tmp_path, table))[-1].memory == memory.read().bytes_total // 4


def test_a_model_has_limits_for_classes(tmp_path: Path) -> None:
    """Each at least one; what has none is left out. Another limit needs no other worker."""
    table = "[[model]]\nname = 'm'\npath = 'm'\n[model.concurrency]\n"
    one, other = (models(resolve(tmp_path, table + most))[-1] for most in ("background = 1", "batch = 3"))
    assert (one.concurrency, other.concurrency) == ({RequestClass.BACKGROUND: 1}, {RequestClass.BATCH: 3})
    assert one.is_loaded_as(other)
    with pytest.raises(ConfigError, match=r"concurrency\.batch .* must be greater than or equal to 1"):
        resolve(tmp_path, table + "batch = 0")


def test_all_models_may_have_the_same_cap(tmp_path: Path) -> None:
    """But those that say something else, or that they have none."""
    tables = "".join(
        f"[[model]]\nname = '{name}'\npath = '{name}'\n{cap}\n"
        for name, cap in (("a", ""), ("b", "memory = '1GiB'"), ("c", "memory = 'none'"))
    )
    found = models(resolve(tmp_path, f"[memory]\nper_model = '2GiB'\n{tables}"))
    assert [model.memory for model in found[-4:]] == [2 * 2**30, 2 * 2**30, 2**30, None]


def test_a_model_has_the_sampling_values_its_runtime_honours(tmp_path: Path) -> None:
    """Defaults that it could not honour are left out; one that somebody wrote is an error."""
    text = "[[model]]\nname = 'm'\npath = 'm'\nruntime = 'echo'"
    assert models(resolve(tmp_path, text))[-1].sampling == {}
    with pytest.raises(ConfigError, match=r"model 'm': sampling\.top_k is not supported by echo"):
        models(resolve(tmp_path, text + "\n[model.sampling]\ntop_k = 3"))


def test_a_model_has_threads_where_its_runtime_has_a_choice(tmp_path: Path) -> None:
    """In the same way."""
    text = "[defaults]\nthreads = 3\n[[model]]\nname = 'm'\npath = 'm'\nruntime = 'mlx'"
    assert models(resolve(tmp_path, text))[-1].threads == 0
    with pytest.raises(ConfigError, match="model 'm': threads is not supported by mlx"):
        models(resolve(tmp_path, text + "\nthreads = 2"))


def test_threads_may_be_as_many_as_are_enough(tmp_path: Path) -> None:
    """Of those that the worker chooses; where that cannot be found out, all, unless somebody asked for it."""
    text = "[[model]]\nname = 'm'\npath = 'm'\nruntime = 'onnx'\n[[model]]\nname = 'n'\npath = 'n'"
    for config in (
        resolve(tmp_path, text, env={"PILOTLIGHT_THREADS": "efficient"}),
        resolve(tmp_path, text, threads="efficient"),
        resolve(tmp_path, text + "\n[defaults]\nthreads = 'efficient'"),
    ):
        onnx, llamacpp = models(config)[-2:]
        assert (onnx.is_efficient, onnx.threads) == (False, 0)
        assert (llamacpp.is_efficient, llamacpp.threads) == (True, 0)
    assert not models(resolve(tmp_path, text + "\nthreads = 4", threads="efficient"))[-1].is_efficient
    wrong = text.replace("'onnx'", "'onnx'\nthreads = 'efficient'")
    with pytest.raises(ConfigError, match="model 'm': threads = 'efficient' is not supported by onnx"):
        models(resolve(tmp_path, wrong))


def test_a_path_given_as_model_is_served_under_its_file_name(tmp_path: Path) -> None:
    """Whatever it holds: a damaged file must not stop the others."""
    (tmp_path / "tiny.gguf").write_bytes(b"")
    config = resolve(tmp_path, model=(str(tmp_path / "tiny.gguf"),))
    assert [model.name for model in models(config)] == ["pilot", "pilot-onnx", "pilot-mlx", "tiny"]
    assert config.preload == ("tiny",)


def test_a_name_given_as_model_is_loaded_at_start(tmp_path: Path) -> None:
    """Once, however often it is named."""
    assert resolve(tmp_path, model=("pilot", "pilot")).preload == ("pilot",)


def test_a_model_that_is_neither_name_nor_file_is_an_error(tmp_path: Path) -> None:
    """Typing errors are told at once, with the nearest name."""
    with pytest.raises(ConfigError, match=r"--model pilto: no such file.*did you mean 'pilot'"):
        check_preload(resolve(tmp_path, model=("pilto",)))


def test_two_models_of_one_name_are_an_error(tmp_path: Path) -> None:
    """The message shows both paths."""
    (tmp_path / "pilot.gguf").write_bytes(b"")
    with pytest.raises(ConfigError, match="two models are named 'pilot'"):
        resolve(tmp_path, model=(str(tmp_path / "pilot.gguf"),))


def test_an_alias_is_a_name(tmp_path: Path) -> None:
    """--model takes it, and no other model may have it."""
    text = "[[model]]\nname = 'm'\npath = 'm.gguf'\naliases = ['small', 'm']\n"
    config = resolve(tmp_path, text, model=("small",))
    assert (config.preload, models(config)[-1].aliases) == (("m",), ("small", "m"))
    with pytest.raises(ConfigError, match=r"two models are named 'small': .*m\.gguf and .*other\.gguf"):
        resolve(tmp_path, text + "[[model]]\nname = 'small'\npath = 'other.gguf'")


def test_a_path_that_models_toml_knows_is_that_model(tmp_path: Path) -> None:
    """It keeps the settings it has there."""
    (tmp_path / "m.gguf").write_bytes(b"")
    text = "[[model]]\nname = 'm'\npath = 'm.gguf'\ncontext = 64"
    config = resolve(tmp_path, text, model=(str(tmp_path / "m.gguf"),))
    assert [model.context for model in models(config)] == [0, 0, 0, 64]


def test_pilotlight_model_is_a_search_path_of_models(tmp_path: Path) -> None:
    """The same values as --model; flags replace them."""
    assert resolve(tmp_path, env={"PILOTLIGHT_MODEL": "pilot"}).preload == ("pilot",)
    (tmp_path / "m.gguf").write_bytes(b"")
    flag = str(tmp_path / "m.gguf")
    assert resolve(tmp_path, env={"PILOTLIGHT_MODEL": "pilot"}, model=(flag,)).preload == ("m",)


@pytest.mark.parametrize("name", ["caf\udce9.gguf", ".gguf"])
def test_a_file_whose_name_no_model_can_have_is_refused(tmp_path: Path, name: str) -> None:
    """Bytes that are no text, or nothing."""
    with pytest.raises(ConfigError, match="has no name that a model can have") as refused:
        model_at(resolve(tmp_path), name.removesuffix(".gguf"), tmp_path / name)
    assert refused.value.message.encode()


def test_pulled_models_are_served_without_a_table(tmp_path: Path) -> None:
    """After the others; the short name is for the first, and for no other model."""
    put(tmp_path, "a/tiny-GGUF:Q8_0", "b/tiny-GGUF:Q8_0", "c/taken")
    config = resolve(tmp_path, "[server]\nbuiltin = false\n[[model]]\nname = 'taken'\npath = 'm.gguf'")
    assert [(model.name, model.aliases) for model in models(config)] == [
        ("taken", ()),
        ("a/tiny-GGUF:Q8_0", ("tiny:Q8_0",)),
        ("b/tiny-GGUF:Q8_0", ()),
        ("c/taken", ()),
    ]


def test_models_pulled_later_are_there_at_the_next_look(tmp_path: Path) -> None:
    """The configuration stays as it is."""
    config = resolve(tmp_path, "[server]\nbuiltin = false")
    assert models(config) == []
    put(tmp_path, "a/tiny")
    assert [model.name for model in models(config)] == ["a/tiny"]


def test_a_source_is_served_under_its_own_name_once_it_is_pulled(tmp_path: Path) -> None:
    """With the settings of its table."""
    text = "[server]\nbuiltin = false\n[[model]]\nname='x'\naliases=['y']\nsource='a/b'\ncontext=64"
    config = resolve(tmp_path, text)
    assert (models(config), unpulled(config)) == ([], ["x", "y"])
    with pytest.raises(ConfigError, match="--model x: it is not pulled yet; `pilotlight pull x` gets it"):
        check_preload(resolve(tmp_path, text, model=("y",)))
    put(tmp_path, "x")
    (model,) = models(config)
    assert (model.name, model.aliases, model.context, unpulled(config)) == ("x", ("y",), 64, [])
    assert model_at(config, "x", Path("/new.gguf")).context == 64


def test_a_model_to_load_need_not_be_there_yet(tmp_path: Path) -> None:
    """Every command reads the variable, and one of them gets the model."""
    env = {"PILOTLIGHT_MODEL": "pilot, a/tiny:Q8_0"}
    with pytest.raises(ConfigError, match="--model a/tiny:Q8_0: no such file, and no model has that name"):
        check_preload(resolve(tmp_path, env=env))
    put(tmp_path, "a/tiny:Q8_0")
    check_preload(config := resolve(tmp_path, env=env))
    assert config.preload == ("pilot", "a/tiny:Q8_0")


def test_a_path_that_cannot_be_looked_at_harms_no_other_model(tmp_path: Path) -> None:
    """Whoever loads it is told."""
    path = "x" * 300 + ".gguf"
    (model,) = models(resolve(tmp_path, f"[server]\nbuiltin = false\n[[model]]\nname = 'm'\npath = '{path}'"))
    assert (model.runtime, model.created, model.bytes_disk) == ("llamacpp", 0, 0)


def test_a_model_that_is_away_is_what_it_was(tmp_path: Path) -> None:
    """Its disk is, perhaps. Of its settings the new ones hold."""
    write(tmp_path / "m", ONNX)
    write(tmp_path, {"n.gguf": b"weights", "a.gguf": b"adapter"})
    text = (
        "[server]\nbuiltin = false\n[[model]]\nname = 'n'\npath = 'n.gguf'\nlora = [{path = 'a.gguf'}]\n"
        "[[model]]\nname = 'm'\npath = 'm'\nprovider = 'cuda'\n"
    )
    before = models(resolve(tmp_path, text))
    for name in ("m", "n.gguf", "a.gguf"):
        (tmp_path / name).rename(tmp_path / f"away-{name}")
    assert models(resolve(tmp_path, text), before) == before
    *_, now = models(resolve(tmp_path, text + "context = 64"), before)
    assert now == msgspec.structs.replace(before[-1], context=64)
    assert [model.bytes_disk for model in models(resolve(tmp_path, text))] == [0, 0]


def test_of_a_folder_that_was_never_there_nobody_knows_the_runtime(tmp_path: Path) -> None:
    """So it may have what any of them can; a GGUF file may not, and nothing has what none can."""
    table = "[server]\nbuiltin = false\n[[model]]\nname = 'm'\npath = "
    (model,) = models(resolve(tmp_path, table + "'m'\nprovider = 'cuda'"))
    assert (model.runtime, model.provider) == ("onnx", "cuda")
    for wrong in ("'m.gguf'\nprovider = 'cuda'", "'m'\nprovider = 'gpu'"):
        with pytest.raises(ConfigError, match="is not supported by llamacpp"):
            models(resolve(tmp_path, table + wrong))


def test_a_store_out_of_reach_is_an_error_of_one_line(tmp_path: Path) -> None:
    """Now, and also when it comes to that while the daemon runs."""
    config = resolve(tmp_path)
    out_of_reach = str(tmp_path / ("x" * 300))
    with pytest.raises(ConfigError, match="xxx cannot be used: File name too long"):
        resolve(tmp_path, env={"PILOTLIGHT_STORE_DIR": out_of_reach})
    moved = replace(config, server=config.server.model_copy(update={"store_dir": Path(out_of_reach)}))
    for look in (models, unpulled):
        with pytest.raises(ConfigError, match="cannot be used"):
            look(moved)


def test_a_model_of_a_store_can_be_chosen(tmp_path: Path) -> None:
    """By any of its names; what it is may change later."""
    HuggingFace(tmp_path / "hub").add("a/M-GGUF", {"M-Q4_0.gguf": GGUF})
    env = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    for name in ("a/M-GGUF:Q4_0", "a/M-GGUF:M-Q4_0"):
        config = resolve(tmp_path, "[server]\nbuiltin = false", env, model=(name,))
        assert (config.preload, config.missing, config.models) == ((name,), (), ())
        (model,) = Finder(config.places, config).complete(())
        assert (model.name, model.store) == (name, "huggingface")


def test_a_pulled_model_can_be_chosen(tmp_path: Path) -> None:
    """Where its versions are may change later."""
    put(tmp_path, "a/tiny-GGUF:Q8_0")
    config = resolve(tmp_path, model=("tiny:Q8_0",))
    assert config.preload == ("a/tiny-GGUF:Q8_0",)
    assert "a/tiny-GGUF:Q8_0" not in [entry.name for entry in config.models]
