"""What an application asks at ``/v1``: a body as a model, a topic by its name; and what it is answered, as JSON."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from mailprefs.catalogue import Scope
from mailprefs.errors import UnknownScope, Unreadable
from mailprefs.web import problems
from mailprefs.web.guard import ARRIVAL
from mailprefs.web.keys import ASKED, House

BODY = 8 * 1024 * 1024  # bytes
PATIENCE = 30.0  # seconds

Model = TypeVar("Model", bound=BaseModel)
Text = Annotated[str, StringConstraints(min_length=1, max_length=320)]


class Asked(BaseModel):
    """A body: nothing in it is guessed, and nothing passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


async def asked(request: web.Request, model: type[Model]) -> Model:
    """Return the body as a model. Raises Unreadable, which says where it is wrong and never repeats what was sent; Busy."""
    arrivals, arrival = request.app[ASKED], request[ARRIVAL]
    body = await problems.read_body(request, limit=BODY, seconds=PATIENCE, counted=partial(arrivals.grow, arrival))
    arrivals.whole(arrival)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        # the last word of the place of a key that we do not know is that key: theirs, not ours
        where = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
        raise Unreadable(f"{'.'.join(map(str, where)) or 'the body'}: {first['msg']}") from None


def topic_of(house: House, name: str) -> Scope:
    """Return the topic that a name means. Raises UnknownScope, which lists none: a key for links need not know what else there is."""
    try:
        return house.catalogue.topic(name)
    except UnknownScope:
        raise UnknownScope("there is no such topic, or more than one; write it as brand/topic") from None


def dumps(value: Any) -> str:
    """Write JSON with Decisions as objects and times in ISO 8601."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value.isoformat()
