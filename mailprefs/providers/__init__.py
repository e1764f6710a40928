"""The providers, one explicit list. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from mailprefs.providers.base import Provider
from mailprefs.providers.sendgrid import SendGrid

PROVIDERS: Mapping[str, Provider] = {each.name: each for each in (SendGrid(),)}
