"""The environment, read once into one frozen value. The only reader of ``os.environ``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mailprefs.catalogue import Account
from mailprefs.errors import Misconfigured


class Settings(BaseSettings):
    """What the environment says. Secrets never show in its ``repr``."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    database_url: SecretStr | None = Field(default=None, alias="DATABASE_URL")  # absent: the embedded server
    config: Path = Field(default=Path("mailprefs.toml"), alias="MAILPREFS_CONFIG")
    keys: SecretStr = Field(default=SecretStr("mailprefs.keys.json"), alias="MAILPREFS_KEYS")  # a file, or its JSON
    home: Path = Field(default=Path(".mailprefs"), alias="MAILPREFS_DATA")  # embedded server, spool, exports
    host: str = Field(default="127.0.0.1", alias="HOST")
    port: int = Field(default=8080, alias="PORT", ge=0, le=65535)

    def secret(self, variable: str) -> str | None:
        """Return the value of an environment variable that the catalogue names, or None."""
        return self._environment.get(variable) or None

    @property
    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def secrets_of(self, account: Account) -> dict[str, str]:
        """Return an account's secrets by their own names. Raises Misconfigured for a variable that is not set."""
        found = {name: self.secret(variable) for name, variable in account.secrets.items()}
        for name, value in found.items():
            if value is None:
                raise Misconfigured(f"account '{account.name}' wants its {name} in the variable {account.secrets[name]}, which is not set.")
        return {name: value for name, value in found.items() if value is not None}


def load() -> Settings:
    """Read the environment. Raises Misconfigured, which names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Misconfigured(f"the environment is wrong: {wrong}") from None
