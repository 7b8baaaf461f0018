"""What the gateway says of a refusal is told on without the tokens and numbers that it repeats."""

from shared.models import Table
from tests.factories import payment_body
from tests.shop import Shop

TOKEN = "pm_1QrT5vXyZ0123456789"


def test_a_refused_token_is_neither_shown_nor_stored(shop: Shop) -> None:
    """In the answer, the payment, its timeline and events, and in any table: its last letters at most."""
    answer = shop.served(lambda: shop.api.post(payment_body(paymentMethodId=TOKEN)))
    assert (answer.status, answer.payment["errorCode"]) == (422, "RESOURCE_MISSING")
    assert "'pm_...6789'" in answer.payment["errorMessage"]
    path = f"/payments/{answer.payment['id']}"
    shown = [answer.text, *(shop.api.get(f"{path}{more}").text for more in ("", "/timeline"))]
    stored = [str(row) for table in Table.metadata.tables for row in shop.api.stored.rows(table)]
    assert len([each for each in (*shown, *stored) if "pm_...6789" in each]) > len(shown)
    assert [each for each in (*shown, *stored) if TOKEN in each] == []
