"""Providers that sign nothing: what they post is known by a user and a password, and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from mailprefs.providers import samples, signing
from mailprefs.providers.base import Answers, Credential, Delivery
from mailprefs.words import Channel


@dataclass(frozen=True, slots=True)
class Unsigned:
    """The half of an ``Ear`` that such providers share. Holds no state."""

    advice: ClassVar[str]  # where the user and the password are set at the provider
    channel: ClassVar[Channel] = Channel.EMAIL
    answers: ClassVar[Answers] = Answers(challenge=signing.CHALLENGE)
    secrets_in: ClassVar[tuple[str, ...]] = tuple(signing.BASIC)
    seals: ClassVar[tuple[str, ...]] = ("Authorization",)

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard."""
        signing.check_basic(credential, self.advice)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the delivery came with the account's user and password."""
        signing.basic(credential, delivery.header("Authorization"))

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a body, with the account's user and password."""
        return samples.posted(body, at, signing.basic_of(credential))
