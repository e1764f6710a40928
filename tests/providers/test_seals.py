"""The header in which a provider's proof travels: every genuine delivery has it, and without it none is genuine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from multidict import CIMultiDict

from mailprefs.errors import Forged
from mailprefs.providers import PROVIDERS, unproven
from mailprefs.providers.base import Sealed

from .cases import Case, case_of

ELSEWHERE = {"mailchimp", "mailgun", "ses"}  # whose proof is in the address or the body


@pytest.fixture(params=PROVIDERS)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def test_every_provider_that_proves_itself_in_a_header_says_in_which() -> None:
    assert {name for name, provider in PROVIDERS.items() if not isinstance(provider, Sealed)} == ELSEWHERE


def test_no_genuine_delivery_is_taken_for_unproven(case: Case) -> None:
    for delivery in (case.sign(case.body([case.tokened])), case.sign_next(case.body([case.tokened]))):
        assert not unproven(case.provider, CIMultiDict(delivery.headers))


@pytest.mark.parametrize("name", sorted(set(PROVIDERS) - ELSEWHERE))
def test_what_is_taken_for_unproven_could_not_be_proven(name: str) -> None:
    case = case_of(name)
    assert isinstance(case.provider, Sealed)
    delivery = case.sign(case.body([case.tokened]))
    case.provider.verify(case.credential, delivery)  # the control
    seals = {name.lower() for name in case.provider.seals}
    bare = replace(delivery, headers=[(name, value) for name, value in delivery.headers if name.lower() not in seals])
    assert unproven(case.provider, CIMultiDict(bare.headers))
    with pytest.raises(Forged):
        case.provider.verify(case.credential, bare)
