"""Settings: what wins over what, and how a wrong one is told."""

from pathlib import Path
from typing import Any

import pytest

from pilotlight import sources
from pilotlight.config import Config
from pilotlight.errors import ConfigError
from pilotlight.settings import Document, ServerSettings
from resolving import resolve

KEY = "sk-0123456789abcdef"

TOO_LONG = "x" * 300
"""No system looks for such a name, for root neither; it stands for what may not be looked into."""


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
    (
        "[memory]\nconversations_for = 'soon'",
        {},
        {},
        '= \'soon\': must be seconds or a duration ("7d", "12h")',
    ),
    ("[policy.hysteresis]\nleave_after = 'soon'", {}, {}, "= 'soon': must be seconds (30) or a duration"),
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


def test_a_config_folder_out_of_reach_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set there would be missed in silence."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / TOO_LONG))
    with pytest.raises(ConfigError, match=r"models\.toml cannot be used: File name too long"):
        Config.resolve(environ={})


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


def test_a_wrong_key_of_a_class_is_told_without_the_key(tmp_path: Path) -> None:
    """Its table stands in another one."""
    with pytest.raises(ConfigError) as raised:
        resolve(tmp_path, "[classes.background]\nkeys = 'secret'")
    assert "classes.background.keys: must be a valid tuple" in raised.value.message
    assert "secret" not in raised.value.message


def test_a_wrong_source_is_told_without_the_url(tmp_path: Path) -> None:
    """It may have a password in it; also where it is not even a text."""
    table = "[[model]]\nname = 'm'\nsource = "
    for source, message in [
        ("'https://me:secret@host/m.gguf'", "a URL with a password is refused"),
        ("'https://host/m.gguf?sign=secret'", "https://host/m.gguf needs the SHA-256"),
        ("['https://host/m.gguf?sign=secret']", "must be a valid string"),
    ]:
        with pytest.raises(ConfigError) as raised:
            resolve(tmp_path, table + source)
        assert f"model[0].source (line 3): {message}" in raised.value.message
        assert "secret" not in raised.value.message


def test_settings_do_not_show_their_sources(tmp_path: Path) -> None:
    """As they do not show their keys."""
    url = f"https://host/m.gguf?sign=secret#sha256={'0' * 64}"
    config = resolve(tmp_path, f"[[model]]\nname = 'm'\nsource = '{url}'")
    assert config.models[-1].source == url
    assert "secret" not in repr(config)


def test_settings_do_not_show_their_keys(tmp_path: Path) -> None:
    """Whoever prints or logs them."""
    config = resolve(tmp_path, env={"PILOTLIGHT_API_KEYS": f"{KEY},{KEY}2"})
    assert config.server.api_keys == (KEY, f"{KEY}2")
    assert KEY not in repr(config) + str(config.server)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_is_fine(tmp_path: Path, host: str) -> None:
    """All of 127.0.0.0/8 is this machine."""
    assert resolve(tmp_path, host=host).server.host == host


def test_what_can_be_no_host_is_refused(tmp_path: Path) -> None:
    """Not tried again and again, as an address is that may come."""
    with pytest.raises(ConfigError, match="must be an address of this machine, or its name"):
        resolve(tmp_path, env={"PILOTLIGHT_API_KEYS": KEY}, host="a..b")


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


def test_a_malformed_table_is_not_hidden_by_a_variable(tmp_path: Path) -> None:
    """A layer above it must not make it disappear."""
    file = tmp_path / "models.toml"
    file.write_text("server = 3\n")
    with pytest.raises(ConfigError, match="must be a table"):
        Config.resolve(config_file=file, environ={"PILOTLIGHT_PORT": "5"})


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
