"""Settings: what wins over what, and how a wrong one is told."""

from pathlib import Path
from typing import Any

import pytest

from pilotlight import sources
from pilotlight.config import Config, model_at, models, unpulled
from pilotlight.core import Lora, RequestClass
from pilotlight.errors import ConfigError
from pilotlight.registry import memory
from pilotlight.settings import Document, ServerSettings
from pilotlight.store.manifest import File, Version
from pilotlight.store.store import Store

KEY = "sk-0123456789abcdef"


def resolve(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: Any) -> Config:
    file = tmp_path / "models.toml"
    file.write_text(text)
    own = {"PILOTLIGHT_STORE_DIR": str(tmp_path / "store")}
    return Config.resolve(flags, config_file=file, environ=own | (env or {}))


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    """Each source overrides the one before it, key by key."""
    text = "[server]\nport = 1\nqueue = 1\nbody_limit = 2048"
    config = resolve(tmp_path, text, {"PILOTLIGHT_PORT": "2", "PILOTLIGHT_QUEUE": "2"}, port=3)
    assert (config.server.port, config.server.queue, config.server.body_limit) == (3, 2, 2048)
    assert config.server.host == ServerSettings().host


def test_a_flag_that_was_not_given_changes_nothing(tmp_path: Path) -> None:
    """None and an empty tuple are how click says that."""
    config = resolve(tmp_path, "[server]\nport = 1", port=None, model=())
    assert (config.server.port, config.preload) == (1, ())


def test_every_setting_has_one_environment_variable() -> None:
    """Flat names only work while no two tables share one."""
    keys = [key for table in ("server", "defaults", "memory", "catalog", "power") for key in _fields(table)]
    assert len([*keys, "policy_preset", "policy_background_priority"]) == len(sources.places(Document))


def _fields(table: str) -> list[str]:
    kind = Document.model_fields[table].annotation
    assert kind is not None
    return list(kind.model_fields)


def test_the_long_variable_names_the_table_too(tmp_path: Path) -> None:
    """PILOTLIGHT_SERVER__PORT is PILOTLIGHT_PORT."""
    assert resolve(tmp_path, env={"PILOTLIGHT_SERVER__PORT": "5"}).server.port == 5


def test_settings_of_memory_have_its_name_before_theirs(tmp_path: Path) -> None:
    """`budget` alone would say nothing on a command line."""
    (tmp_path / "models.toml").write_text("[memory]\nbudget = 0.5\nreserve = 1000")
    file = tmp_path / "models.toml"
    assert Config.resolve(config_file=file, environ={}).memory.budget == "0.5"
    env = {"PILOTLIGHT_MEMORY_BUDGET": "2GiB", "PILOTLIGHT_MEMORY__RESERVE": "20%"}
    memory = Config.resolve(config_file=file, environ=env).memory
    assert (memory.budget, memory.reserve) == ("2GiB", "20%")
    assert Config.resolve({"memory_budget": "3GB"}, config_file=file, environ=env).memory.budget == "3GB"


def test_a_list_in_a_variable_is_separated_by_commas(tmp_path: Path) -> None:
    """Spaces and empty parts don't count."""
    config = resolve(tmp_path, env={"PILOTLIGHT_ALLOWED_HOSTS": "a.lan, b.lan,"})
    assert config.server.allowed_hosts == ("a.lan", "b.lan")


def test_a_list_in_a_variable_may_be_empty(tmp_path: Path) -> None:
    """Nothing is looked for then; folders are found from where we are, and from home."""
    assert resolve(tmp_path, env={"PILOTLIGHT_STORES": ",", "PILOTLIGHT_MODEL_DIRS": ","}).places == ()
    some = resolve(tmp_path, env={"PILOTLIGHT_STORES": ",", "PILOTLIGHT_MODEL_DIRS": "~/a, b"}).places
    assert [place.path for place in some] == [Path.home() / "a", Path.cwd() / "b"]


def test_folders_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    """Each of the list."""
    config = resolve(tmp_path, "[catalog]\nmodel_dirs = ['a', '~/b']\nstores = []")
    assert [place.path for place in config.places] == [tmp_path / "a", Path.home() / "b"]


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    """Compose files and unit files set what they don't know to nothing."""
    assert resolve(tmp_path, env={"PILOTLIGHT_PORT": ""}).server.port == 8710


WRONG = [
    ("[server]\nprot = 1", {}, {}, "models.toml: unknown key server.prot; did you mean 'port'?"),
    ("[servr]", {}, {}, "models.toml: unknown key servr; did you mean 'server'?"),
    ("[server]\nthreads = 1", {}, {}, "models.toml: unknown key server.threads; it belongs in [defaults]"),
    (
        "[server]\nmemory_budget = 1",
        {},
        {},
        "unknown key server.memory_budget; it belongs in [memory] as budget",
    ),
    ("[memory]\nbudget = '2 apples'", {}, {}, "memory.budget = '2 apples': must be bytes"),
    ("", {"PILOTLIGHT_MEMORY_BUDGET": "1.5"}, {}, "PILOTLIGHT_MEMORY_BUDGET = '1.5': must be"),
    ("", {}, {"memory_budget": "0"}, "--memory-budget = '0': must be more than 0"),
    ("[memory]\nreserve = 'auto'", {}, {}, "memory.reserve = 'auto': must be bytes"),
    ("[memory]\nper_model = '0%'", {}, {}, "memory.per_model = '0%': must be more than 0"),
    ("[memory]\nconversations = '50%'", {}, {}, "memory.conversations = '50%': must be bytes of disk"),
    ("[memory]\nconversations = true", {}, {}, "memory.conversations = True: must be a valid string"),
    (
        "[memory]\nconversations_for = 0",
        {},
        {},
        "memory.conversations_for = 0: must be seconds or a duration",
    ),
    ("", {"PILOTLIGHT_MEMORY_CONVERSATIONS_FOR": "-1"}, {}, "CONVERSATIONS_FOR = '-1': must be seconds"),
    ("[defaults]\nkeep_alive = 'soon'", {}, {}, "defaults.keep_alive = 'soon': must be seconds"),
    (
        "[[model]]\nname='x'\npath='x'\nmemory='much'",
        {},
        {},
        "model[0].memory (line 4) = 'much': must",
    ),
    ("[[model]]\nname='x'\npath='x'\nlora=[{pth='y'}]", {}, {}, "model[0].lora[0].path (line 3) is missing"),
    ("[defaults]\nkv_cache_type = 'q7'", {}, {}, "kv_cache_type = 'q7': must be auto, one of f32, f16"),
    ("[defaults]\nthreads = 1025", {}, {}, "defaults.threads = 1025: must be a number of threads up to 1024"),
    ("[defaults]\nthreads = true", {}, {}, "defaults.threads = True: must be a number of threads"),
    ("", {"PILOTLIGHT_THREADS": "all"}, {}, "PILOTLIGHT_THREADS = 'all': must be a number of threads"),
    ("", {}, {"threads": "-1"}, "--threads = '-1': must be a number of threads"),
    ("[server]\nport = 70000", {}, {}, "server.port = 70000: must be less than or equal to 65535"),
    ("[server]\nlog_level = 'loud'", {}, {}, "must be 'debug', 'info', 'warning' or 'error'"),
    ("[server]\ndrain_s = nan", {}, {}, "server.drain_s = nan: must be a finite number"),
    ("server = 3", {}, {}, "server: must be a table, [server]"),
    ("[model]\nname = 'x'", {}, {}, "model: must be a list of tables, [[model]]"),
    ("[[model]]\nname = 'x'", {}, {}, "model[0].path (line 1) is missing"),
    ("[[model]]\nname='x'\npath='x'\nsource='a/b'", {}, {}, "there is a source already"),
    ("[[model]]\nname='x'\nsource='b'", {}, {}, "'b' is nothing to pull: give owner/name"),
    ("[[model]]\nname='x'\npath='x'\n[model.sampling]\ntemperture=1", {}, {}, "did you mean 'temperature'?"),
    ("[server]\nport = = 1", {}, {}, "at line 2"),
    ("", {"PILOTLIGHT_PORT": "many"}, {}, "PILOTLIGHT_PORT = 'many': must be a valid integer"),
    ("", {"PILOTLIGHT_PROT": "1"}, {}, "variable PILOTLIGHT_PROT; did you mean 'PILOTLIGHT_PORT'?"),
    ("", {}, {"port": -1}, "--port = -1: must be greater than or equal to 0"),
    ("", {}, {"state_dir": "x", "log_level": "x"}, "--log-level = 'x'"),
]


@pytest.mark.parametrize(("text", "env", "flags", "message"), WRONG)
def test_a_wrong_setting_is_told_with_its_place_and_what_is_right(
    tmp_path: Path, text: str, env: dict[str, str], flags: dict[str, Any], message: str
) -> None:
    """File, variable or flag; the value; what is allowed or nearest."""
    with pytest.raises(ConfigError) as raised:
        resolve(tmp_path, text, env, **flags)
    assert message in raised.value.message
    assert "\n" not in raised.value.message


def test_a_missing_config_file_is_an_error(tmp_path: Path) -> None:
    """Whoever names a file wants that file."""
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read"):
        Config.resolve(config_file=tmp_path / "none.toml", environ={})


def test_pilotlight_config_names_the_file(tmp_path: Path) -> None:
    """The variable stands in for --config."""
    (tmp_path / "c.toml").write_text("[server]\nport = 7")
    config = Config.resolve(environ={"PILOTLIGHT_CONFIG": str(tmp_path / "c.toml")})
    assert (config.server.port, config.file) == (7, tmp_path / "c.toml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com"])
def test_a_host_that_others_can_reach_is_refused(tmp_path: Path, host: str) -> None:
    """Without a key nobody but this machine may connect."""
    with pytest.raises(ConfigError, match=r"needs an API key, in server\.api_keys or PILOTLIGHT_API_KEYS"):
        resolve(tmp_path, host=host)
    with_key = {"PILOTLIGHT_API_KEYS": KEY}
    assert resolve(tmp_path, env=with_key, host=host).server.host == host
    assert resolve(tmp_path, f"[server]\napi_keys = ['{KEY}']", host=host).server.api_keys == (KEY,)


WRONG_KEYS = [
    ("api_keys = ['secret']", {}, "server.api_keys[0]: must have 16 to 512 letters, digits or signs"),
    ("api_keys = 'secret'", {}, "server.api_keys: must be a valid tuple"),
    ("api_keys = [{secret = 'secret'}]", {}, "server.api_keys[0]: must be a valid string"),
    ("", {"PILOTLIGHT_API_KEYS": "secret"}, "PILOTLIGHT_API_KEYS: must have 16 to 512"),
    ("", {"PILOTLIGHT_API_KEYS": f"{KEY},secret of mine"}, "no spaces and commas"),
    (f"api_keys = ['{KEY}']\nhost = 3", {}, "server.host = 3: must be a valid string"),
]


@pytest.mark.parametrize(("text", "env", "message"), WRONG_KEYS)
def test_a_wrong_key_is_told_without_the_key(
    tmp_path: Path, text: str, env: dict[str, str], message: str
) -> None:
    """What a start that fails says may end in a log."""
    with pytest.raises(ConfigError) as raised:
        resolve(tmp_path, f"[server]\n{text}", env)
    assert message in raised.value.message
    assert "secret" not in raised.value.message.replace("server.api_keys", "")
    assert KEY not in raised.value.message


def test_settings_do_not_show_their_keys(tmp_path: Path) -> None:
    """Whoever prints or logs them."""
    config = resolve(tmp_path, env={"PILOTLIGHT_API_KEYS": f"{KEY},{KEY}2"})
    assert config.server.api_keys == (KEY, f"{KEY}2")
    assert KEY not in repr(config) + str(config.server)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_is_fine(tmp_path: Path, host: str) -> None:
    """All of 127.0.0.0/8 is this machine."""
    assert resolve(tmp_path, host=host).server.host == host


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    """A configuration folder can be moved as a whole."""
    config = resolve(tmp_path, "[server]\nstate_dir = 'state'\n[[model]]\nname = 'm'\npath = 'm.gguf'")
    assert config.state_dir == tmp_path / "state"
    assert config.models[-1].path == tmp_path / "m.gguf"


def test_a_state_dir_on_the_command_line_is_relative_to_where_we_are(tmp_path: Path) -> None:
    """As every other program has it."""
    assert resolve(tmp_path, state_dir="state").state_dir == Path.cwd() / "state"


def test_the_home_directory_is_expanded(tmp_path: Path) -> None:
    """In files, where no shell does it."""
    config = resolve(tmp_path, "[[model]]\nname = 'm'\npath = '~/m.gguf'")
    assert config.models[-1].path == Path.home() / "m.gguf"


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
        resolve(tmp_path, model=("pilto",))


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


def test_a_malformed_table_is_not_hidden_by_a_variable(tmp_path: Path) -> None:
    """A layer above it must not make it disappear."""
    file = tmp_path / "models.toml"
    file.write_text("server = 3\n")
    with pytest.raises(ConfigError, match="must be a table"):
        Config.resolve(config_file=file, environ={"PILOTLIGHT_PORT": "5"})


def put(tmp_path: Path, *names: str) -> None:
    """Pulled models of these names."""
    store = Store(tmp_path / "store")
    for name in names:
        file = File("model.gguf", f"sha256:{'0' * 64}", 0)
        store.part(file.digest)
        store.arrived(file.digest).touch()
        store.activate(name, store.install(name, Version("0" * 12, name, "", 0.0, file.path, (file,))))


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
        resolve(tmp_path, text, model=("y",))
    put(tmp_path, "x")
    (model,) = models(config)
    assert (model.name, model.aliases, model.context, unpulled(config)) == ("x", ("y",), 64, [])
    assert model_at(config, "x", Path("/new.gguf")).context == 64


def test_a_pulled_model_can_be_chosen(tmp_path: Path) -> None:
    """Where its versions are may change later."""
    put(tmp_path, "a/tiny-GGUF:Q8_0")
    config = resolve(tmp_path, model=("tiny:Q8_0",))
    assert config.preload == ("a/tiny-GGUF:Q8_0",)
    assert "a/tiny-GGUF:Q8_0" not in [entry.name for entry in config.models]


def test_classes_name_their_clients(tmp_path: Path) -> None:
    """In a table for each; there are no others."""
    classes = resolve(tmp_path, '[classes]\nbackground = { agents = ["a*"], keys = ["k"] }').classes
    assert (classes.background.agents, classes.background.keys) == (("a*",), ("k",))
    assert classes.batch.agents == ()
    with pytest.raises(ConfigError, match=r"unknown key classes\.bakground; did you mean 'background'"):
        resolve(tmp_path, "[classes.bakground]")
    with pytest.raises(ConfigError, match=r"unknown key classes\.batch\.agent; did you mean 'agents'"):
        resolve(tmp_path, "[classes.batch]\nagent = []")
    with pytest.raises(ConfigError, match="unknown variable PILOTLIGHT_CLASSES__BATCH"):
        resolve(tmp_path, env={"PILOTLIGHT_CLASSES__BATCH": "a"})
