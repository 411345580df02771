"""Settings: one table, one resolver, one frozen result."""

from dicomrx.settings.report import Row, as_env, exposed_key, markdown, rows
from dicomrx.settings.resolve import Lost, Resolution, refuse_plain_http, resolve
from dicomrx.settings.sources import NAMES, flag_word
from dicomrx.settings.table import ENV_PREFIX, TABLE, Setting, Settings
from dicomrx.settings.values import AeProfile, Issuer, Space, Timeout, to_text

__all__ = [
    "ENV_PREFIX",
    "NAMES",
    "TABLE",
    "AeProfile",
    "Issuer",
    "Lost",
    "Resolution",
    "Row",
    "Setting",
    "Settings",
    "Space",
    "Timeout",
    "as_env",
    "exposed_key",
    "flag_word",
    "markdown",
    "refuse_plain_http",
    "resolve",
    "rows",
    "to_text",
]
