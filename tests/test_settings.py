"""The environment: read in one place, told by its variables' names, its secrets never shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from mailprefs import settings
from mailprefs.catalogue import Account, Catalogue
from mailprefs.errors import Misconfigured

SECRET = "SG.a-secret-that-nobody-may-see"
RING = '{"digest": "c2VjcmV0", "keys": []}'
NAMES = ("DATABASE_URL", "MAILPREFS_CONFIG", "MAILPREFS_KEYS", "MAILPREFS_DATA", "HOST", "PORT", "SENDGRID_WEBHOOK_KEY", "SENDGRID_API_KEY")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def account(shared_catalogue: Catalogue) -> Account:
    return shared_catalogue.account[0]


def test_an_empty_environment_has_sound_defaults(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "")  # as a shell leaves it when it means nothing
    found = settings.load()
    assert found.database_url is None
    assert found.config == Path("mailprefs.toml")
    assert (found.host, found.port) == ("127.0.0.1", 8080)


def test_the_environment_is_read_by_its_names(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "postgresql://mailprefs:secret@db.example.com/mailprefs?host=/run/postgresql")
    environment.setenv("MAILPREFS_CONFIG", "/etc/mailprefs/mailprefs.toml")
    environment.setenv("MAILPREFS_KEYS", RING)
    environment.setenv("PORT", "9000")
    found = settings.load()
    assert found.database_url is not None
    assert found.database_url.get_secret_value().startswith("postgresql://mailprefs:secret@")
    assert found.keys.get_secret_value() == RING
    assert (found.config, found.port) == (Path("/etc/mailprefs/mailprefs.toml"), 9000)
    assert found.home == Path("/etc/mailprefs/.mailprefs"), "its data lies beside the catalogue"
    environment.setenv("MAILPREFS_DATA", "/var/lib/mailprefs")
    assert settings.load().home == Path("/var/lib/mailprefs")


@pytest.mark.parametrize("port", ["eighty", "-1", "65536", "80.5"])
def test_a_wrong_variable_is_named_and_its_value_is_not_repeated(environment: pytest.MonkeyPatch, port: str) -> None:
    environment.setenv("PORT", port)
    with pytest.raises(Misconfigured, match="PORT") as refused:
        settings.load()
    assert "eighty" not in "".join(traceback.format_exception(refused.value))


def test_a_missing_secret_names_account_secret_and_variable(environment: pytest.MonkeyPatch, account: Account) -> None:
    environment.setenv("SENDGRID_WEBHOOK_KEY", SECRET)
    for value in (None, ""):
        if value is not None:
            environment.setenv("SENDGRID_API_KEY", value)
        with pytest.raises(Misconfigured, match=r"sendgrid-main.*api_key.*SENDGRID_API_KEY") as refused:
            settings.load().secrets_of(account.name, account.secrets)
        assert SECRET not in str(refused.value)


def test_the_secrets_of_an_account_come_by_their_own_names(environment: pytest.MonkeyPatch, account: Account) -> None:
    environment.setenv("SENDGRID_WEBHOOK_KEY", "public")
    environment.setenv("SENDGRID_API_KEY", SECRET)
    assert settings.load().secrets_of(account.name, account.secrets) == {"webhook_key": "public", "api_key": SECRET}


def test_no_repr_shows_a_secret(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", f"postgresql://mailprefs:{SECRET}@db.example.com/mailprefs")
    environment.setenv("MAILPREFS_KEYS", RING)
    environment.setenv("SENDGRID_API_KEY", SECRET)
    found = settings.load()
    assert found.secret("SENDGRID_API_KEY") == SECRET, "the control: it is there"
    for shown in (repr(found), str(found), found.model_dump_json(), repr(found.model_dump())):
        assert SECRET not in shown
        assert "c2VjcmV0" not in shown


def test_settings_cannot_be_changed_once_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PORT", "9000")
    found = settings.load()
    with pytest.raises(ValueError, match="frozen"):
        setattr(found, *("port", 9001))
    assert found.port == 9000
