"""The one table of settings: flags, environment, TOML keys, `dicomrx config` and the README's table all come from it."""
# ruff: noqa: ANN401, RUF009  what a default calls makes a dataclass field, and is typed as loosely as `field`

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from dicomrx.settings import values
from dicomrx.settings.values import AeProfile, Issuer, Parser, Space, Timeout

ENV_PREFIX: Final = "DICOM_RECEIVER_"
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
BURNED_IN: Final = ("quarantine", "blank", "pass")
ON_AMBIGUOUS: Final = ("resend", "hold")
ENGINES: Final = ("lane", "pynetdicom")

_TOML_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "space": (int, str),
    "text": (str,),
    "path": (str,),
}


class Setting(NamedTuple):
    """One row of the table."""

    name: str
    flag_word: str
    kind: str
    parse: Parser
    default: object
    help: str
    secret: bool = False
    echo: bool = True
    choices: tuple[str, ...] = ()
    unit: str = ""

    @property
    def env(self) -> str:
        """Name of the environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def meaning(self) -> str:
        """The help with its unit and choices, and what of it is refused as not yet carried out."""
        carried = NOT_YET.get(self.name, self.choices)
        choices = ", ".join(choice if choice in carried else f"{choice} (not yet)" for choice in self.choices)
        unit = f" ({self.unit})" if self.unit else ""
        not_yet = "; not yet" if self.name in NOT_YET and not self.choices else ""
        return self.help + unit + (f": {choices}" if choices else not_yet)

    @property
    def flag(self) -> str:
        """The flag as typed."""
        return "--" + self.flag_word

    @property
    def toml_types(self) -> tuple[type, ...]:
        """Types that a TOML value may have."""
        return _TOML_TYPES[self.kind]


def _row(  # noqa: PLR0913  each column of the table
    default: object,
    parse: Parser,
    help: str,  # noqa: A002
    *,
    kind: str = "text",
    flag: str = "",
    secret: bool = False,
    echo: bool = True,
    choices: tuple[str, ...] = (),
    unit: str = "",
) -> Any:
    row = {"parse": parse, "help": help, "kind": kind, "flag_word": flag, "secret": secret, "echo": echo and not secret}
    return field(default=default, repr=not secret, metadata=row | {"choices": choices, "unit": unit})


def _path(default: Path | None, help: str, *, flag: str = "") -> Any:  # noqa: A002
    return _row(default, values.path, help, kind="path", flag=flag)


def _switch(help: str, *, on: bool) -> Any:  # noqa: A002
    return _row(on, values.boolean, help, kind="bool")


def _choice(default: str, choices: tuple[str, ...], help: str) -> Any:  # noqa: A002
    return _row(default, values.choice(*choices), help, choices=choices)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of a run, resolved once; `repr` leaves secrets out."""

    port: int = _row(11112, values.port, "TCP port of the receiver; 0: any free one", kind="int")
    host: str = _row("0.0.0.0", values.words, "address the receiver listens on")  # noqa: S104  a receiver serves its network
    ae_title: str = _row("DICOMRCV", values.ae_title, "AE title of the receiver; calls to another one are refused")
    calling_ae: tuple[str, ...] = _row((), values.many(values.ae_title), "AE titles that may send; none given: any", kind="list")
    allow_hosts: tuple[str, ...] = _row(
        (), values.many(values.host_or_network), "addresses and networks that may connect; none given: any", kind="list"
    )
    max_connections: int = _row(20, values.whole(1), "associations served at a time; the last two go to peers that have none", kind="int")
    engine: str = _choice("lane", ENGINES, "how C-STORE data is received; pynetdicom is the slower one")
    tls_cert: Path | None = _path(None, "certificate of the receiver, PEM: it then speaks TLS, 1.2 or newer, and nothing else")
    tls_key: Path | None = _path(None, "private key of the receiver, PEM, not encrypted; none: it is in TLS_CERT")
    tls_ca: Path | None = _path(None, "certificates of those who may connect, or of who signed theirs, PEM; none: anyone")
    storage_dir: Path = _path(Path("storage"), "the spool: every image on its way", flag="storage")
    state_dir: Path = _path(Path("state"), "identities, vault and keys: other rights and backup than the spool")
    zip_dir: Path = _path(Path("zips"), "the zip files")
    spool_group: str | None = _row(None, values.words, "group that shares the spool, and new zips (2770/0660 instead of 0700/0600)")
    min_free: Space = _row(
        Space(500 << 20), values.space, "free space that the receiver leaves on the spool's disk: 500M, 2G or 5%", kind="space"
    )
    durable: bool = _switch("fsync before an image is acknowledged; off only for tests", on=True)
    timeout: float = _row(60.0, values.seconds(zero=False), "quiet time after which a study is complete", kind="float", unit="s")
    timeout_ae: tuple[Timeout, ...] = _row(
        (), values.many(values.timeout(values.ae_title)), "AE=SECONDS: TIMEOUT of studies that this calling AE sends", kind="list"
    )
    timeout_modality: tuple[Timeout, ...] = _row(
        (), values.many(values.timeout(values.modality)), "CT=SECONDS: TIMEOUT of studies of this modality; the longest wins", kind="list"
    )
    evidence_wait: float = _row(
        0.0,
        values.seconds(zero=True),
        "quiet time, at most, for a study with gaps in its numbering or whose last association was cut short; 0: TIMEOUT alone",
        kind="float",
        unit="s",
    )
    profile: str = _row(
        "basic", values.words, "de-identification profile: basic, research, either +option..., or a file that ends in .toml"
    )
    ae_profiles: tuple[AeProfile, ...] = _row(
        (), values.many(values.ae_profile), "AE=PROFILE: profile for images of that calling AE, instead of PROFILE", kind="list"
    )
    burned_in: str = _choice("quarantine", BURNED_IN, "images that may show identities in their pixels")
    issuers: tuple[Issuer, ...] = _row(
        (), values.many(values.issuer), "AE=ISSUER: issuer of PatientID for images of that calling AE that name none", kind="list"
    )
    placeholders: tuple[str, ...] = _row(
        (), values.many(values.words), "more words that stand for no patient where an ID or a name should be, such as NOTFALL", kind="list"
    )
    pseudonym: str = _row("sub-%03d", values.pseudonym_format, "what a patient's number is written into; a state keeps its first one")
    vault_days: int | None = _row(
        None, values.whole(1, values.DAYS_MAX), "days that originals are kept; none: for ever", kind="int", unit="days"
    )
    workers: int | None = _row(
        None, values.whole(1), "workers of a stage (of upload: studies sent at a time); none: by the number of cores", kind="int"
    )
    auto_upload: bool = _switch("`all` also sends complete studies", on=False)
    api_url: str = _row("http://localhost:8000/api", values.url, "address of the upload API", echo=False)
    api_username: str | None = _row(None, values.words, "user of the upload API")
    api_password: str | None = _row(None, values.words, "password of the upload API", secret=True)
    api_token: str | None = _row(None, values.token, "token of the upload API, instead of user and password", secret=True)
    api_ca: Path | None = _path(None, "certificates that the API's own must lead to, PEM; none: the well-known ones")
    api_cert: Path | None = _path(None, "our certificate for the API, PEM")
    api_key: Path | None = _path(None, "private key of API_CERT, PEM; none: it is in the same file")
    require_https: bool = _switch("refuse an API address that is not https", on=False)
    max_retries: int = _row(3, values.whole(0), "retries of an upload after the first attempt", kind="int")
    retry_delay: float = _row(5.0, values.seconds(zero=True), "pause before the first retry; later ones double it", kind="float", unit="s")
    on_ambiguous: str = _choice(
        "resend", ON_AMBIGUOUS, "what the API may have already, its answer being lost: sent again with the same key, or held for a person"
    )
    cleanup_after_upload: bool = _switch("remove data and zip of a study once its receipt is durable", on=False)
    keep_days: int | None = _row(
        None,
        values.whole(0, values.DAYS_MAX),
        "days that data and zips of sent studies are kept; none: for ever; receipts stay",
        kind="int",
        unit="days",
    )
    manifest_in_zip: bool = _switch("the zip also holds manifest.json: hashes, profile, and how it was decided to be complete", on=False)
    log_level: str = _choice("INFO", LOG_LEVELS, "least level that is logged, at DEBUG each image too")
    log_file: Path | None = _path(None, "file that gets the log too")
    config: Path | None = _path(None, "TOML file with settings; its keys are the flag words")


def _read_table() -> dict[str, Setting]:
    table = {}
    for row in fields(Settings):
        columns = dict(row.metadata)
        columns["flag_word"] = columns["flag_word"] or row.name.replace("_", "-")
        table[row.name] = Setting(name=row.name, default=row.default, **columns)
    return table


TABLE: Final[Mapping[str, Setting]] = _read_table()

# Known, but not carried out by this version unless the value is one of these: refused rather than ignored.
NOT_YET: Final[Mapping[str, tuple[object, ...]]] = {
    "burned_in": ("quarantine", "pass"),
    "vault_days": (None,),
}

# Variables of the older tool that mean nothing here, and what to know about each.
OLDER_VARIABLES: Final[Mapping[str, str]] = {
    "DICOM_RECEIVER_PII_TAGS": "the de-identification profile removes more than any list of tags",
    "DICOM_RECEIVER_MAP_FILENAME": "identities are kept below DICOM_RECEIVER_STATE_DIR; `dicomrx restore --map-file` reads the older map",
    "DICOM_RECEIVER_DATA_DIR": "set DICOM_RECEIVER_STORAGE_DIR, DICOM_RECEIVER_STATE_DIR and DICOM_RECEIVER_ZIP_DIR",
    "DICOM_RECEIVER_KEY_FILE": "the key is made and kept below DICOM_RECEIVER_STATE_DIR",
}
