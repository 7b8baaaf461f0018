"""The guards of the neighbours' doors, and how each is taken away; seeds with odd numbers can notice."""

from typing import Final

from tests.simulation.guards import Guard

COURIER: Final = "payment_worker.courier"
DELIVERIES: Final = "payment_worker.deliveries"


def _in(module: str, before: str, after: str) -> dict[str, list[tuple[str, str]]]:
    return {module: [(before, after)]}


DOOR_GUARDS: Final = (
    Guard("one live payment a subscription (index)", statements=("DROP INDEX uq_payment_live_subscription",)),
    Guard(
        "a trial charges nothing",
        _in("payment_worker.catalog", 'if trial_days or plan["price"] == 0:', 'if plan["price"] == 0:'),
    ),
    Guard(
        "an outcome is told to the catalog",
        _in(
            "shared.lifecycle",
            "if payment.outcome_topic and announcement in OUTCOMES:",
            "if payment.outcome_topic and announcement in OUTCOMES and cause.actor != 'worker':",
        ),
    ),
    Guard(
        "a reservation's lock in the payment's transaction",
        _in(
            "shared.commands.reservations",
            "query.with_for_update(read=True, of=Reservation)",
            "query",
        ),
    ),
    Guard(
        "what is over is not made active by older news",
        _in(
            "shared.commands.reservations",
            "case((Reservation.status == ACTIVE, told.status), else_=Reservation.status)",
            "told.status",
        ),
    ),
    Guard(
        "an expiry gives up what is not paid",
        _in(
            "payment_worker.ticketing", 'if is_over and handling.settings.reservations == "on":', "if False:"
        ),
    ),
    Guard(
        "a refusal is stored",
        _in(
            "shared.commands.received",
            "session.execute(_note(message, refusal))",
            "session.execute(_note(message))",
        ),
    ),
    Guard(
        "a refusal has one event id",
        _in(
            "shared.command_messages",
            'str(uuid.uuid5(_ANSWERS, f"{asked.command}/{asked.id}"))',
            "str(uuid.uuid4())",
        ),
    ),
    Guard(
        "one delivery of a payment at a time",
        _in(DELIVERIES, "            is_first,\n", ""),
    ),
    Guard(
        "a delivery is tried for days",
        _in(COURIER, "delay_s = None if taken.is_last else retry_delay_s(taken.attempts)", "delay_s = None"),
    ),
    Guard(
        "a delivery counts once it is taken",
        _in(COURIER, "if status is not None and 200 <= status < 300:", "if True:"),
    ),
    Guard(
        "an event is kept for whoever is told",
        _in(
            "shared.rows",
            "        exists().where(endpoint.c.state == EndpointState.ENABLED),\n",
            "        exists().where(endpoint.c.failures > 0),\n",
        ),
    ),
    Guard(
        "a disabled endpoint is announced",
        _in(
            "payment_worker.subscribers",
            "    session.connection().execute(insert(plain(Outbox)).values(_event(row, reason)))\n",
            "",
        ),
    ),
    Guard(
        "no connection while a subscriber is called",
        _in(
            COURIER,
            "            return caller.send(notice.method, notice.url, notice.body, notice.headers)",
            "            with self._sessions.begin() as session:\n"
            "                session.connection()\n"
            "                return caller.send(notice.method, notice.url, notice.body, notice.headers)",
        ),
    ),
    Guard(
        "the order service hears an order's payments in their order",
        _in(
            DELIVERIES,
            '        "place": taken.c.position,\n',
            '        "place": -taken.c.position,\n',
        ),
    ),
)
