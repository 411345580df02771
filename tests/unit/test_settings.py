import os
from pathlib import Path
from traceback import format_exception

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.errors import ConfigError
from dicomrx.settings import (
    TABLE,
    AeProfile,
    Issuer,
    Resolution,
    Setting,
    Settings,
    Space,
    Timeout,
    as_env,
    exposed_key,
    markdown,
    refuse_plain_http,
    resolve,
    rows,
    to_text,
)
from dicomrx.settings.table import NOT_YET, OLDER_VARIABLES

PASSWORD = "correct horse battery"
TOKEN = "abc.def.ghi"

# Three different values of each kind, as text: from the environment, from the command line, from the file.
SAMPLES = {
    "port": ("104", "4242", "11113"),
    "host": ("127.0.0.1", "::1", "10.0.0.1"),
    "ae_title": ("ENV", "FLAG", "FILE"),
    "calling_ae": ("CT1,CT2", "MR1", "US1,US2,US3"),
    "allow_hosts": ("10.1.2.3", "10.1.0.0/16,::1", "192.168.0.1"),
    "max_connections": ("1", "2", "3"),
    "min_free": ("5%", "2G", "100K"),
    "timeout": ("1", "2.5", "3"),
    "timeout_ae": ("CT1=30", "PACS=600,A=B=0.5", "MR1=60"),
    "timeout_modality": ("CT=30", "MR=600,US=0.5", "CR=5"),
    "evidence_wait": ("0", "600", "1.5"),
    "max_retries": ("0", "1", "2"),
    "retry_delay": ("0", "0.5", "2"),
    "issuers": ("CT1=CLINIC A", "CT1=CLINIC B,MR1=C", "US1=D"),
    "ae_profiles": ("CT1=research", "CT1=basic,MR1=basic+full-dates", "US1=site.toml"),
    "workers": ("1", "2", "3"),
    "api_url": ("http://a.example/api", "https://b.example", "https://c.example:8443/x"),
    "log_level": ("DEBUG", "WARNING", "ERROR"),
    "api_token": ("t1", "t2", "t3"),
    "burned_in": ("pass", "quarantine", "pass"),
    "on_ambiguous": ("hold", "resend", "hold"),
    "keep_days": ("0", "30", "365"),
    "pseudonym": ("P%d", "north-%04d-a", "sub-%03d"),
    "engine": ("pynetdicom", "lane", "pynetdicom"),
}
CHOOSABLE = [name for name in TABLE if name not in {*NOT_YET, "config"}] + ["burned_in"]


def samples(name: str) -> tuple[str, str, str]:
    if TABLE[name].kind == "bool":
        return "true", "false", "true"
    return SAMPLES.get(name, ("one", "two", "three"))


def toml(row: Setting, text: str) -> str:
    if row.kind in ("int", "float", "bool"):
        return text
    if row.kind == "list":
        return "[" + ", ".join(f'"{item}"' for item in text.split(",")) + "]"
    return f'"{text}"'


def value(resolution: Resolution, name: str) -> str:
    return to_text(getattr(resolution.settings, name))


def config_file(path: Path, text: str) -> dict[str, str]:
    (path / "dicomrx.toml").write_text(text)
    return {"DICOM_RECEIVER_CONFIG": str(path / "dicomrx.toml")}


def test_with_nothing_given_every_setting_has_its_default() -> None:
    resolution = resolve({}, {})
    assert resolution.settings == Settings()
    assert set(resolution.origin.values()) == {"default"}
    assert not resolution.warnings
    assert not resolution.shadowed


@pytest.mark.parametrize("name", CHOOSABLE)
def test_environment_beats_command_line_beats_file_beats_default(name: str, tmp_path: Path) -> None:
    row = TABLE[name]
    by_env, by_flag, by_file = samples(name)
    env = config_file(tmp_path, f"{row.flag_word} = {toml(row, by_file)}\n")

    in_file = resolve({}, env)
    assert (value(in_file, name), in_file.origin[name]) == (by_file, "file")
    typed = resolve({name: by_flag}, env)
    assert (value(typed, name), typed.origin[name]) == (by_flag, "command line")
    in_env = resolve({name: by_flag}, {**env, row.env: by_env})
    assert (value(in_env, name), in_env.origin[name]) == (by_env, "environment")
    assert [(lost.name, lost.origin) for lost in in_env.shadowed] == [(name, "command line"), (name, "file")]
    empty = resolve({}, {row.env: ""})
    assert (getattr(empty.settings, name), empty.origin[name]) == (row.default, "default")


@pytest.mark.parametrize("name", CHOOSABLE)
def test_a_typed_flag_that_loses_is_answered_at_once_with_the_variable(name: str) -> None:
    row = TABLE[name]
    by_env, by_flag, _ = samples(name)
    resolution = resolve({name: by_flag}, {row.env: by_env})
    (answer,) = [line for line in resolution.warnings if "ignored" in line]
    flag = f"--no-{row.flag_word}" if row.kind == "bool" else f"--{row.flag_word}"
    assert answer.startswith(flag)
    assert row.env in answer
    assert answer.endswith("wins (see dicomrx config)")
    with pytest.raises(ConfigError) as caught:
        resolve({name: by_flag}, {row.env: by_env}, strict_config=True)
    assert caught.value.exit_code == 78
    assert row.env in str(caught.value)


def test_the_answer_shows_both_values() -> None:
    assert resolve({"port": 4242}, {"DICOM_RECEIVER_PORT": "11112"}).warnings == (
        "--port 4242 ignored: DICOM_RECEIVER_PORT=11112 wins (see dicomrx config)",
    )


def test_a_flag_equal_to_the_variable_loses_nothing() -> None:
    assert resolve({"timeout": 60}, {"DICOM_RECEIVER_TIMEOUT": "60.0"}, strict_config=True).warnings == ()


def test_a_file_that_loses_to_a_flag_is_no_conflict(tmp_path: Path) -> None:
    resolution = resolve({"port": 1}, config_file(tmp_path, "port = 2"), strict_config=True)
    assert resolution.warnings == ()
    assert [(lost.place, lost.value) for lost in resolution.shadowed] == [(f"port in {tmp_path}/dicomrx.toml", "2")]


def test_the_file_is_chosen_by_the_variable_before_the_flag(tmp_path: Path) -> None:
    env = config_file(tmp_path, "port = 2")
    (tmp_path / "other.toml").write_text("port = 3")
    assert resolve({"config": tmp_path / "other.toml"}, {}).settings.port == 3
    resolution = resolve({"config": tmp_path / "other.toml"}, env)
    assert resolution.settings.port == 2
    assert "--config" in resolution.warnings[0]


@pytest.mark.parametrize(("word", "expected"), [("TRUE", True), ("1", True), ("yes", True), ("On", True), ("False", False), ("0", False)])
def test_a_boolean_variable_may_be_written_in_several_ways(word: str, expected: bool) -> None:
    assert resolve({}, {"DICOM_RECEIVER_AUTO_UPLOAD": word}).settings.auto_upload is expected


def test_a_boolean_can_be_negated_over_the_file(tmp_path: Path) -> None:
    env = config_file(tmp_path, "auto-upload = true\ndurable = true")
    settings = resolve({"auto_upload": False, "durable": False}, env).settings
    assert not settings.auto_upload
    assert not settings.durable


def test_a_list_flag_takes_commas_and_repetition() -> None:
    assert resolve({"calling_ae": ["CT1,CT2", "MR 1", "CT1"]}, {}).settings.calling_ae == ("CT1", "CT2", "MR 1")
    assert resolve({"calling_ae": []}, {}).origin["calling_ae"] == "default"


def test_lists_and_amounts_are_values_not_text() -> None:
    env = {"DICOM_RECEIVER_ISSUERS": "CT1=CLINIC A, MR1 = B", "DICOM_RECEIVER_ALLOW_HOSTS": "10.1.2.3/8", "DICOM_RECEIVER_MIN_FREE": "2GiB"}
    settings = resolve({}, env).settings
    assert settings.issuers == (Issuer("CT1", "CLINIC A"), Issuer("MR1", "B"))
    assert settings.allow_hosts == ("10.0.0.0/8",)
    assert settings.min_free == Space(2 << 30)
    assert settings.min_free.floor(1 << 40) == 2 << 30
    assert Space(5, percent=True).floor(1000) == 50


BAD = [
    ("port", "70000"),
    ("port", "-1"),
    ("port", "eleven"),
    ("port", "1_0"),
    ("timeout", "0"),
    ("timeout", "nan"),
    ("timeout", "inf"),
    ("timeout", "1e12"),
    ("timeout_ae", "CT=1e12"),
    ("keep_days", "999999"),
    ("timeout", "60s"),
    ("retry_delay", "-1"),
    ("max_retries", "-1"),
    ("max_connections", "0"),
    ("workers", "0"),
    ("ae_title", "SEVENTEEN LETTERS"),
    ("ae_title", "BACK\\SLASH"),
    ("ae_title", "ÄRZTE"),
    ("calling_ae", "GOOD,NOT SO GOOD A TITLE"),
    ("allow_hosts", "10.1.2"),
    ("allow_hosts", "scanner.example"),
    ("pseudonym", "sub"),
    ("pseudonym", "sub-%s"),
    ("pseudonym", "%d-%d"),
    ("pseudonym", "100%-%d"),
    ("pseudonym", "%%-%d"),
    ("pseudonym", "%3d"),
    ("pseudonym", "%012d"),
    ("pseudonym", "A^%d"),
    ("pseudonym", "A=%d"),
    ("pseudonym", "A\\%d"),
    ("pseudonym", "Ä%d"),
    ("pseudonym", "x" * 40 + "%d"),
    ("issuers", "CT1"),
    ("issuers", "=CLINIC"),
    ("issuers", "CT1=" + "x" * 65),
    ("issuers", "CT1=A,CT1=B"),
    ("ae_profiles", "CT1"),
    ("ae_profiles", "CT1="),
    ("ae_profiles", "=basic"),
    ("ae_profiles", "CT1=basic,CT1=research"),
    ("timeout_ae", "CT1"),
    ("timeout_ae", "=30"),
    ("timeout_ae", "CT1=0"),
    ("timeout_ae", "CT1=30,CT1=60"),
    ("timeout_modality", "C T=30"),
    ("timeout_modality", "CT=soon"),
    ("evidence_wait", "-1"),
    ("api_url", "ftp://api.example"),
    ("api_url", "api.example/api"),
    ("api_url", "http://"),
    ("api_url", "http://api.example:port/"),
    ("api_url", "http://api.example/?x=1"),
    ("api_token", "two words"),
    ("api_token", "a\nX-Header: b"),
    ("log_level", "LOUD"),
    ("burned_in", "hope"),
    ("engine", "steam"),
    ("auto_upload", "maybe"),
    ("min_free", "100%"),
    ("min_free", "2X"),
    ("min_free", "-1"),
    ("storage_dir", "a\0b"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_value_that_breaks_its_rule_is_refused_with_the_name_of_the_setting(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=TABLE[name].env):
        resolve({}, {TABLE[name].env: text})


def test_a_bad_flag_is_named_as_it_was_typed() -> None:
    with pytest.raises(ConfigError, match=r"^--port=abc: must be a whole number from 0 to 65535$"):
        resolve({"port": "abc"}, {})


@pytest.mark.parametrize(
    ("name", "text", "advice"),
    [
        ("burned_in", "blank", "use quarantine or pass"),
        ("vault_days", "30", "leave it out"),
    ],
)
def test_what_this_version_does_not_carry_out_is_refused_not_ignored(name: str, text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"{TABLE[name].env}: this version does not yet carry out .*{advice}"):
        resolve({}, {TABLE[name].env: text})


def test_every_default_is_carried_out_and_survives_its_own_parser() -> None:
    for name, row in TABLE.items():
        assert name not in NOT_YET or row.default in NOT_YET[name]
        assert row.default in (None, ()) or row.parse(to_text(row.default)) == row.default


def test_https_can_be_required() -> None:
    with pytest.raises(ConfigError, match="DICOM_RECEIVER_API_URL does not begin with https"):
        refuse_plain_http(resolve({"require_https": True}, {}).settings)
    refuse_plain_http(resolve({"require_https": True, "api_url": "HTTPS://api.example"}, {}).settings)
    refuse_plain_http(resolve({"require_https": True}, {"DICOM_RECEIVER_REQUIRE_HTTPS": "no"}).settings)


def secret_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_comes_from_a_file_named_by_variable_flag_or_toml(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "password", f"{PASSWORD}\n".encode())
    for flags, env, origin in (
        ({}, {"DICOM_RECEIVER_API_PASSWORD_FILE": str(file)}, "environment"),
        ({"api_password_file": file}, {}, "command line"),
        ({}, config_file(tmp_path, f'api-password-file = "{file}"'), "file"),
    ):
        resolution = resolve(flags, env)
        assert resolution.settings.api_password == PASSWORD
        assert resolution.origin["api_password"] == origin
        assert resolution.warnings == ()


@pytest.mark.parametrize(
    ("content", "expected"), [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a "), (b"a\r", "a\r"), ("ä".encode(), "ä")]
)
def test_one_line_end_of_a_secret_file_is_no_part_of_the_secret(tmp_path: Path, content: bytes, expected: str) -> None:
    file = secret_file(tmp_path / "password", content)
    assert resolve({"api_password_file": file}, {}).settings.api_password == expected


def test_a_secret_comes_from_systemd_unless_given_otherwise(tmp_path: Path) -> None:
    secret_file(tmp_path / "api-token", TOKEN.encode())
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    resolution = resolve({}, env)
    assert resolution.settings.api_token == TOKEN
    assert resolution.origin["api_token"] == "credential"
    assert resolve({}, {**env, "DICOM_RECEIVER_API_TOKEN": "other"}).settings.api_token == "other"


def test_a_secret_given_both_directly_and_as_a_file_is_refused(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "token", TOKEN.encode())
    for flags, env in (
        ({}, {"DICOM_RECEIVER_API_TOKEN": "x1", "DICOM_RECEIVER_API_TOKEN_FILE": str(file)}),
        ({"api_token": "x1", "api_token_file": file}, {}),
        ({}, config_file(tmp_path, f'api-token = "x1"\napi-token-file = "{file}"')),
    ):
        with pytest.raises(ConfigError, match="both given") as caught:
            resolve(flags, env)
        assert "x1" not in str(caught.value)


def test_a_secret_file_that_is_missing_or_empty_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DICOM_RECEIVER_API_TOKEN_FILE: .*gone cannot be read: No such file"):
        resolve({}, {"DICOM_RECEIVER_API_TOKEN_FILE": str(tmp_path / "gone")})
    with pytest.raises(ConfigError, match=r"--api-password-file: .* is empty"):
        resolve({"api_password_file": secret_file(tmp_path / "empty", b"\n")}, {})
    with pytest.raises(ConfigError, match="too long"):
        resolve({"api_password_file": secret_file(tmp_path / "long", b"x" * 70_000)}, {})
    with pytest.raises(ConfigError, match="not UTF-8"):
        resolve({"api_password_file": secret_file(tmp_path / "binary", b"\xff")}, {})


def test_a_file_with_a_secret_that_everybody_reads_is_warned_about(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "password", PASSWORD.encode(), 0o644)
    assert "every user can read" in resolve({"api_password_file": file}, {}).warnings[0]
    env = config_file(tmp_path, f'api-password = "{PASSWORD}"')
    (tmp_path / "dicomrx.toml").chmod(0o644)
    assert "chmod 600" in resolve({}, env).warnings[0]


@pytest.mark.parametrize("whose", ["tls", "api"])
def test_a_private_key_that_everybody_reads_is_told_wherever_it_lies_and_only_then(whose: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    apart = Settings(**{f"{whose}_key": key, f"{whose}_cert": certificate})  # type: ignore[arg-type]
    together = Settings(**{f"{whose}_cert": certificate})  # type: ignore[arg-type]
    assert exposed_key(Settings(), whose) is exposed_key(apart, whose) is exposed_key(together, whose) is None
    certificate.touch(0o644)
    key.touch(0o640)
    assert exposed_key(apart, whose) is None
    assert f"{whose.upper()}_CERT: every user can read {certificate}" in str(exposed_key(together, whose))
    key.chmod(0o644)
    assert f"{whose.upper()}_KEY: every user can read {key}" in str(exposed_key(apart, whose))


def test_a_password_on_the_command_line_works_and_is_warned_about() -> None:
    resolution = resolve({"api_password": PASSWORD}, {})
    assert resolution.settings.api_password == PASSWORD
    assert resolution.warnings[0].startswith("--api-password is visible to every user")


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    resolution = resolve(
        {"api_password": PASSWORD + "2", "api_token": TOKEN},
        {"DICOM_RECEIVER_API_PASSWORD": PASSWORD, "DICOM_RECEIVER_API_TOKEN": TOKEN + "2"},
    )
    shown = f"{resolution!r} {resolution.settings!r} {rows(resolution)} {resolution.warnings}"
    assert PASSWORD not in shown
    assert TOKEN not in shown
    assert ("api-password", "********", "environment", ("--api-password (********)",)) in rows(resolution)
    for env in (
        {"DICOM_RECEIVER_API_TOKEN": f"{TOKEN} {TOKEN}"},
        {"DICOM_RECEIVER_API_URL": f"https://user:{TOKEN}@api.example/"},
        config_file(tmp_path, f'api-password = "{TOKEN}\x01"'),
        config_file(tmp_path, f"api-password = {TOKEN}"),
        config_file(tmp_path, f"api-password = ['{TOKEN}']"),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve({}, env)
        assert TOKEN not in "".join(format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot is not a setting; did you mean port?"),
        ("storage_dir = 'x'", "storage_dir is not a setting"),
        ("config = 'other.toml'", "config is not a setting"),
        ("port = '1'", "port must be a number"),
        ("port = true", "port must be a number"),
        ("port = 1.5", "port must be a number"),
        ("auto-upload = 1", "auto-upload must be true or false"),
        ("ae-title = 1", "ae-title must be text"),
        ("calling-ae = 'CT1'", "calling-ae must be a list"),
        ("calling-ae = [1]", "calling-ae must be a list"),
        ("calling-ae = ['A,B']", "without commas"),
        ("[port]\nx = 1", "port must be a number"),
        ("port = 70000", "port in .*: must be a whole number from 0 to 65535"),
        ("port = = 1", r"is not TOML: at line 1, column 8$"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve({}, config_file(tmp_path, text))
    assert "dicomrx.toml" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: No such file"):
        resolve({"config": tmp_path / "gone.toml"}, {})
    (tmp_path / "latin.toml").write_bytes(b"# \xe4")
    with pytest.raises(ConfigError, match="not UTF-8"):
        resolve({"config": tmp_path / "latin.toml"}, {})


def test_an_unknown_variable_is_warned_about_with_the_nearest_name() -> None:
    env = {"DICOM_RECEIVER_PROT": "1", "DICOM_RECEIVER_API_PASSWORT": PASSWORD, "DICOM_RECEIVER_XYZZY": "", "OTHER": ""}
    assert resolve({}, env).warnings == (
        "DICOM_RECEIVER_API_PASSWORT is not a setting; did you mean DICOM_RECEIVER_API_PASSWORD?",
        "DICOM_RECEIVER_PROT is not a setting; did you mean DICOM_RECEIVER_PORT?",
        "DICOM_RECEIVER_XYZZY is not a setting",
    )


@pytest.mark.parametrize("variable", OLDER_VARIABLES)
def test_a_variable_of_the_older_tool_is_said_to_be_unused(variable: str) -> None:
    (warning,) = resolve({}, {variable: "x"}).warnings
    assert warning.startswith(f"{variable} is not used: ")


def test_a_flag_that_no_setting_has_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="prot"):
        resolve({"prot": 1}, {})


def test_a_child_gets_exactly_these_settings_and_reads_no_file_again(tmp_path: Path) -> None:
    password = secret_file(tmp_path / "password", f" {PASSWORD}\n".encode())
    env = {
        **config_file(tmp_path, f"port = 2\ncalling-ae = ['A', 'B']\nissuers = ['A=X']\ntimeout = 0.1\napi-password-file = '{password}'"),
        "DICOM_RECEIVER_PROT": "1",
        "PATH": "/bin",
    }
    resolution = resolve({"durable": False, "min_free": "5%", "log_file": "log"}, env)
    child_env = as_env(resolution.settings, env)
    password.unlink()
    (tmp_path / "dicomrx.toml").unlink()
    child = resolve({}, child_env)
    assert child.warnings == ()
    assert {**vars(child.settings), "config": None} == {**vars(resolution.settings), "config": None}
    assert child_env["PATH"] == "/bin"
    assert not [name for name in child_env if name.endswith(("_CONFIG", "PASSWORD_FILE", "_PROT"))]


AE_TITLES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\,="), min_size=1, max_size=16)
SECONDS = st.floats(min_value=0, max_value=366 * 86400, exclude_min=True)


@given(
    st.builds(
        Settings,
        port=st.integers(0, 65535),
        timeout=SECONDS,
        calling_ae=st.lists(AE_TITLES, unique=True).map(tuple),
        issuers=st.dictionaries(AE_TITLES, AE_TITLES).map(lambda pairs: tuple(Issuer(*pair) for pair in pairs.items())),
        ae_profiles=st.dictionaries(AE_TITLES, AE_TITLES).map(lambda pairs: tuple(AeProfile(*pair) for pair in pairs.items())),
        timeout_ae=st.dictionaries(AE_TITLES, SECONDS).map(lambda pairs: tuple(Timeout(*pair) for pair in pairs.items())),
        min_free=st.builds(Space, st.integers(0, 1 << 49), st.just(value=False))
        | st.builds(Space, st.integers(0, 99), st.just(value=True)),
        api_password=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
        auto_upload=st.booleans(),
        workers=st.none() | st.integers(1, 1000),
    )
)
def test_any_settings_survive_the_environment(settings: Settings) -> None:
    assert resolve({}, as_env(settings)).settings == settings


def test_config_rows_tell_value_origin_and_what_lost(tmp_path: Path) -> None:
    env = {**config_file(tmp_path, "port = 3"), "DICOM_RECEIVER_PORT": "1"}
    table = {row.name: row for row in rows(resolve({"port": "2"}, env))}
    assert table["port"] == ("port", "1", "environment", ("--port (2)", f"port in {tmp_path}/dicomrx.toml (3)"))
    assert table["storage"].value == "storage"
    assert table["calling-ae"] == ("calling-ae", "", "default", ())
    assert len(table) == len(TABLE)


def test_control_characters_of_a_value_reach_no_terminal() -> None:
    resolution = resolve({"api_username": "\x1b[2J"}, {"DICOM_RECEIVER_API_USERNAME": "\u202eme", "DICOM_RECEIVER_\x1b": ""})
    assert all(line.isprintable() for line in resolution.warnings)
    assert all(row.value.isprintable() and all(text.isprintable() for text in row.overrode) for row in rows(resolution))


def test_the_markdown_table_has_every_setting() -> None:
    lines = markdown().splitlines()
    assert len(lines) == 2 + len(TABLE)
    assert "| `DICOM_RECEIVER_STORAGE_DIR` | `--storage` | `storage` |" in markdown()
    assert "`--auto-upload` / `--no-auto-upload`" in markdown()
    assert all(line.count("|") == 5 for line in lines)


def test_the_environment_of_this_process_resolves() -> None:
    assert resolve({}, os.environ).settings == Settings()
