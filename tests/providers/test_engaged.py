"""Which accounts may be heard beside each other, and what an account may not say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailprefs.catalogue import Account, Catalogue
from mailprefs.errors import Forged, Misconfigured
from mailprefs.links import KeyRing
from mailprefs.providers import PROVIDERS, engaged, told_apart
from mailprefs.providers.base import Bound, Credential
from mailprefs.settings import Settings
from mailprefs.web import app as service

from .cases import Case, case_of

NAMES = ("main-account", "other-account")


@pytest.fixture(params=PROVIDERS)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def refused(case: Case, other: Credential, **different: str) -> bool:
    """True if the account of the case and one with another credential may not be heard beside each other."""
    one = Account(name=NAMES[0], provider=case.provider.name, brand="connective", stops="marketing")
    beside = one.model_copy(update={"name": NAMES[1], **different})
    try:
        told_apart([(one, case.provider, case.credential), (beside, case.provider, other)])
    except Misconfigured as error:
        said = str(error)
    else:
        return False
    assert all(name in said for name in NAMES)
    assert not any(secret in said for secret in case.credential.secrets.values())
    return True


def verifies(case: Case, credential: Credential) -> bool:
    """True if what was signed for the account of the case is taken for another's."""
    try:
        case.provider.verify(credential, case.sign(case.body([case.tokened])))
    except Forged:
        return False
    return True


def others(case: Case) -> list[Credential]:
    """Return credentials of another account: the very same, one amid a rotation, one with a key of its own, one with options of its own."""
    own = {name: case.rotated.secrets.get(f"{name}_next", secret) for name, secret in case.credential.secrets.items()}
    found = [case.credential, replace(case.rotated, options=case.credential.options), replace(case.credential, secrets=own)]
    options = {"public_url": "https://go.example.com/hooks/other", "topic_arns": ("arn:aws:sns:us-east-1:123456789012:other",)}
    return [*found, replace(case.credential, options={**case.credential.options, **options})]


def test_two_accounts_are_refused_where_a_delivery_to_the_one_would_verify_at_the_other(case: Case) -> None:
    expected = [verifies(case, other) for other in others(case)]
    if case.provider.name == "ses":
        expected[2] = True  # SNS posts what it tells of a topic to all who subscribed, each with the password it knows for them
    assert [refused(case, other, brand="second") for other in others(case)] == expected
    assert [refused(case, other, stops="newsletter") for other in others(case)] == expected
    assert expected[:2] == [True, True], "the control: the same secret was looked at"
    assert expected[3] is not isinstance(case.provider, Bound)


def test_accounts_that_stop_the_same_may_share_a_secret(case: Case) -> None:
    assert not any(refused(case, other) for other in others(case))


def test_providers_do_not_vouch_for_each_other() -> None:
    resend, standard = case_of("resend"), case_of("standard")
    pair = [
        (Account(name=each.provider.name, provider=each.provider.name, brand=brand), each.provider, resend.credential)
        for each, brand in ((resend, "connective"), (standard, "second"))
    ]
    told_apart(pair)


def test_a_service_does_not_start_where_a_delivery_could_stop_the_other_brand(shared_catalogue: Catalogue, ring: KeyRing) -> None:
    second = shared_catalogue.brand[0].model_copy(update={"name": "second", "number": 2})
    both = [each.model_copy(update={"scopes": {}}) for each in shared_catalogue.account]
    wide = Catalogue(brand=(*shared_catalogue.brand, second), account=(both[0], both[1].model_copy(update={"brand": "second"})))
    secrets = case_of("sendgrid").credential.secrets
    lent = {variable: secrets[name] for account in wide.account for name, variable in account.secrets.items()}
    with pytest.raises(Misconfigured, match="'sendgrid-main' and 'sendgrid-second' prove their deliveries alike"):
        service.house(Settings().lending(lent), wide, ring)
    service.house(Settings().lending(lent), shared_catalogue, ring)  # the control: one brand


def test_an_account_of_mail_names_no_node_that_it_stops(shared_catalogue: Catalogue) -> None:
    account, secrets = shared_catalogue.account[0], case_of("sendgrid").credential.secrets
    settings = Settings().lending({variable: secrets[name] for name, variable in account.secrets.items()})
    engaged(account, settings)
    for stops in ("orders", "connective", "newsletter"):
        with pytest.raises(Misconfigured, match="'sendgrid-main' has stops"):
            engaged(account.model_copy(update={"stops": stops}), settings)
