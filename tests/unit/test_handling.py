"""What other services write, read as it was meant: times, ids, and reasons."""

from datetime import UTC, datetime, timedelta

import pytest

from payment_worker.catalog import is_out_of_stock
from payment_worker.handling import FURTHEST_AHEAD, canonical, moment
from shared.payments import InvalidCommand

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-03-04T12:00:00Z", NOON),
        ("2026-03-04T13:00:00+01:00", NOON),
        ("2026-03-04T12:00:00", NOON),
        ("2026-03-04", NOON - timedelta(hours=12)),
    ],
)
def test_times_are_read_with_and_without_a_zone(text: str, meant: datetime) -> None:
    """Who names no zone means UTC; a date is its beginning."""
    assert moment("at", text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "2026-13-01", "2026-03-04T25:00:00Z", "2026-06-30T23:59:60Z",
        "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    """And not repeated in the message."""
    with pytest.raises(InvalidCommand, match=r"^at: must be a time in RFC 3339$"):
        moment("at", text)


def test_the_future_begins_where_no_time_zone_is_any_more() -> None:
    """A date that has begun somewhere on earth has begun."""
    now = datetime.now(UTC)
    assert moment("at", (now + FURTHEST_AHEAD - timedelta(hours=1)).isoformat()) > now
    with pytest.raises(InvalidCommand, match=r"^at: lies in the future$"):
        moment("at", (now + FURTHEST_AHEAD + timedelta(hours=1)).isoformat())


def test_ids_that_are_uuids_are_kept_in_one_case() -> None:
    """Others stay as their sender writes them."""
    given = ["7C9E6679-7425-40DE-944B-E07FC1F90AE7", "Order-17", "{7c9e6679-7425-40de-944b-e07fc1f90ae7}"]
    assert [canonical(each) for each in given] == [given[0].lower(), *given[1:]]
    assert canonical(None) is None


@pytest.mark.parametrize("reason", ["OutOfStock", "out_of_stock", "Out of stock: flooded", "OUT-OF-STOCK"])
def test_reasons_that_say_out_of_stock(reason: str) -> None:
    """However it is spelled."""
    assert is_out_of_stock(reason)


@pytest.mark.parametrize("reason", [None, "", "customer_return", "no longer out of stock", "restock"])
def test_reasons_that_do_not(reason: str | None) -> None:
    """Money goes back for no other reason."""
    assert not is_out_of_stock(reason)
