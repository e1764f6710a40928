"""The environment, read once into one frozen value. The only reader of ``os.environ``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mailprefs.errors import Misconfigured


class Settings(BaseSettings):
    """What the environment says. Secrets never show in its ``repr``."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    _lent: Mapping[str, str] = PrivateAttr(default_factory=dict)

    database_url: SecretStr | None = Field(default=None, alias="DATABASE_URL")  # absent: the embedded server
    read_database_url: SecretStr | None = Field(default=None, alias="READ_DATABASE_URL")  # a standby, for audiences and exports
    config: Path = Field(default=Path("mailprefs.toml"), alias="MAILPREFS_CONFIG")
    keys: SecretStr = Field(default=SecretStr("mailprefs.keys.json"), alias="MAILPREFS_KEYS")  # a file, or its JSON
    # embedded server, spool, exports: beside the catalogue, so that a command finds the same ones from wherever it is given
    home: Path = Field(default_factory=lambda said: said["config"].parent / ".mailprefs", alias="MAILPREFS_DATA")
    host: str = Field(default="127.0.0.1", alias="HOST")
    port: int = Field(default=8080, alias="PORT", ge=0, le=65535)
    metrics_port: int | None = Field(default=None, alias="METRICS_PORT", ge=0, le=65535)  # of the worker; absent: it shows none
    lmtp_port: int | None = Field(default=None, alias="LMTP_PORT", ge=0, le=65535)  # absent: the worker takes no letters
    smtp_url: SecretStr | None = Field(default=None, alias="SMTP_URL")  # absent: links cannot be mailed, and no page promises one
    authserv: str | None = Field(default=None, alias="MAIL_AUTHSERV_ID")  # as your mail server calls itself when it says who is proven

    def secret(self, variable: str) -> str | None:
        """Return the value of an environment variable that the catalogue names, or None."""
        return self._lent.get(variable) or os.environ.get(variable) or None

    def lending(self, secrets: Mapping[str, str]) -> Settings:
        """Return the settings with secrets of their own beside the environment's, for a sandbox."""
        copy = self.model_copy()
        copy._lent = dict(secrets)
        return copy

    def secrets_of(self, account: str, variables: Mapping[str, str]) -> dict[str, str]:
        """Return an account's secrets by their own names, from the variables that hold them. Raises Misconfigured for one not set."""
        found = {}
        for name, variable in variables.items():
            if (value := self.secret(variable)) is None:
                raise Misconfigured(f"account '{account}' wants its {name} in the variable {variable}, which is not set.")
            found[name] = value
        return found


def load() -> Settings:
    """Read the environment. Raises Misconfigured, which names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Misconfigured(f"the environment is wrong: {wrong}") from None
