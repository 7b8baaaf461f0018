"""Commands from Kafka: what of their headers goes on."""

from datetime import UTC, datetime

import pytest

from shared.command_messages import read_command, rejection
from shared.payments import Command

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.mark.parametrize(
    ("correlation_id", "traceparent", "kept"),
    [
        ("checkout-7", TRACE, {"ce_correlationid": b"checkout-7", "traceparent": TRACE.encode()}),
        ("4242424242424242", "4242424242424242", {}),
        ("x" * 100_000, TRACE + "0" * 100_000, {}),
        ("line\nbreak", "", {}),
    ],
    ids=["usable", "a card number", "without end", "no word"],
)
def test_an_answer_repeats_only_usable_headers(
    correlation_id: str, traceparent: str, kept: dict[str, bytes]
) -> None:
    """Another service's correlation id and trace go into the answer if they could go into a log."""
    given = [("ce_correlationid", correlation_id.encode()), ("traceparent", traceparent.encode())]
    asked = read_command(Command.CANCEL_PAYMENT, [("ce_id", b"c-1"), *given], b"{}", "nowhere")
    answer = rejection(asked, "INVALID", "name the payment", datetime.now(UTC))
    headers = dict(answer.headers)
    assert {name: headers[name] for name, _ in given if name in headers} == kept
