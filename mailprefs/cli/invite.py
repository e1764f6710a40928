"""A link to somebody's choices, mailed at the word of staff: what only the recipient can lift, only the recipient lifts."""

from __future__ import annotations

from mailprefs import choices, ledger, post
from mailprefs.cli.opening import Opening, now
from mailprefs.errors import Misconfigured, NotEntitled, Unreadable
from mailprefs.passes import Purpose
from mailprefs.words import Cause, Change, Channel, Door, Effect


async def invited(address: str, scope: str, cause: Cause, id_: str, operator: str) -> bool:
    """Owe a link to an address, with a note of who asked for it and why; False where three were asked for within the hour.

    Raises NotEntitled, Unreadable or Misconfigured, which say why no link of that brand can go to that address.
    """
    opening = Opening()
    whom, node = opening.addresses.read(address), opening.catalogue.scope(scope)
    brand = opening.catalogue.brand_of(node.number)
    if brand is None or whom.channel is not Channel.EMAIL:
        raise NotEntitled(
            f"only the recipient can lift a {cause}; name a scope of a brand, and an e-mail address that a link can be mailed to"
        )
    if cause is Cause.COMPLAINT and brand.complaint == "final":
        raise NotEntitled(f'a complaint about {brand.name} is final: its catalogue does not say complaint = "liftable"')
    if brand.number not in post.mailing(opening.settings, opening.catalogue):
        raise Misconfigured(f"no link can be mailed for {brand.name}: set SMTP_URL and the brand's `from`, or its `mailer`")
    note = Change(whom, node.number, cause, Effect.NOTE, Door.STAFF, id_, now(), by=operator)
    async with opening.connected() as connection, connection.transaction():
        if (await choices.person(connection, whom)).address.text is None:
            raise Unreadable("nobody told us of that address (mailprefs import addresses), so nothing is mailed to it")
        await ledger.record(connection, [note], now=now())
        return await post.ask(connection, Purpose.MANAGE, whom, brand.number * 256, language=None, now=now())
