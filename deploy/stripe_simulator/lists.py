"""Lists as Stripe pages them: newest first, a cursor on either side, a window in time."""

from collections.abc import Mapping, Sequence

from deploy.stripe_simulator import params
from deploy.stripe_simulator.errors import invalid, missing
from deploy.stripe_simulator.params import Params
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.store import Facts, Page, Store, UnknownCursor

LIMIT_DEFAULT = 10
LIMIT_MAX = 100

_MOMENT = params.integer(minimum=0)
_CREATED_RANGE = params.mapping(dict.fromkeys(("gt", "gte", "lt", "lte"), _MOMENT))


def _created(value: object, name: str) -> dict[str, int]:
    """Accept a moment, or a hash of bounds."""
    if isinstance(value, dict):
        bounds: dict[str, int] = _CREATED_RANGE(value, name)
        return bounds
    moment: int = _MOMENT(value, name)
    return {"gte": moment, "lte": moment}


PAGING: dict[str, params.Check] = {
    "ending_before": params.text(),
    "limit": params.integer(1, LIMIT_MAX),
    "starting_after": params.text(),
}
CREATED: dict[str, params.Check] = {"created": _created}


def page_of(
    store: Store,
    kind: str,
    checked: Params,
    *,
    links: Mapping[str, str] | None = None,
    status: str | None = None,
) -> tuple[list[Facts], bool]:
    """Return the page of objects that the checked parameters ask for, and whether more follow.

    Raises StripeError.
    """
    if "starting_after" in checked and "ending_before" in checked:
        message = "You may only specify one of these parameters: ending_before, starting_after."
        raise invalid(message, param="ending_before")
    page = Page(
        limit=checked.get("limit", LIMIT_DEFAULT),
        after=checked.get("starting_after"),
        before=checked.get("ending_before"),
        created=checked.get("created"),
        links=links,
        status=status,
    )
    try:
        return store.page(kind, page)
    except UnknownCursor as error:
        param = "starting_after" if "starting_after" in checked else "ending_before"
        raise missing(kind, str(error), param=param) from error


def as_list(data: Sequence[Rendered], url: str, *, has_more: bool) -> Rendered:
    """Return a list object."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}
