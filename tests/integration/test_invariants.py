"""The check on invariants is silent on payments that lived by the rules, and names each that did not."""

import json
import uuid
from typing import Any

import pytest
from psycopg import sql

from payment_worker import auditing
from payment_worker.auditing import take_turn
from payment_worker.figures import Figures
from payment_worker.invariants import INVARIANTS, broken
from shared.commands.cancel import cancel_payment
from shared.commands.create import CreatePayment, create_payment
from shared.commands.process import process_payment
from shared.database import alone
from shared.money import Money
from shared.payments import CaptureMethod
from shared.wakeup import connect_redis
from tests.api import Stored
from tests.factories import new_uuid
from tests.life import ORIGIN, cancel, capture, hold, refund
from tests.operating import operate
from tests.worker import NOT_DUE_S, Bench

DECLINED_MINOR = 1_013

# What breaks each invariant of the payment whose id it is given; the constraints in its way are dropped.
BREAKING: dict[str, str] = {
    "captured_within_amount": "UPDATE payment SET captured_minor = amount_minor + 1 WHERE id = %s",
    "refunded_within_captured": "UPDATE payment SET refunded_minor = captured_minor + 1 WHERE id = %s",
    "reserved_is_open_refunds": "UPDATE payment SET refund_reserved_minor = 1 WHERE id = %s",
    "refunded_is_counted": "UPDATE payment SET refunded_minor = 1 WHERE id = %s",
    "captured_was_asked_for": "UPDATE operation SET state = 'failed' WHERE payment_id = %s",
    "status_fits_sums": "UPDATE payment SET status = 'refunded' WHERE id = %s",
    "processed_has_time": "UPDATE payment SET processed_at = NULL WHERE id = %s",
    "paid_has_reference": "UPDATE payment SET transaction_id = NULL WHERE id = %s",
    "one_live_payment_an_order": """
        UPDATE payment SET order_id = (SELECT max(order_id) FROM payment WHERE status = 'pending')
        WHERE id = %s""",
    "one_live_payment_a_cart": """
        UPDATE payment SET cart_id = 'one', status = 'succeeded' WHERE id = %s OR true""",
    "one_live_charge": """
        INSERT INTO operation (id, payment_id, kind, amount_minor, state, attempt, key_number, dispatch_count,
            needs_review, created_at, finished_at)
        VALUES (gen_random_uuid(), %s, 'charge', 1, 'succeeded', 1, 1, 0, false, now(), now())""",
    "begins_with_a_charge": "UPDATE operation SET kind = 'capture' WHERE payment_id = %s",
    "settled_has_no_open_charge": """
        UPDATE operation SET finished_at = NULL, state = 'in_flight', next_attempt_at = now()
        WHERE payment_id = %s""",
    "open_has_a_charge_left": "UPDATE payment SET status = 'processing' WHERE id = %s",
    "open_operation_goes_on": """
        UPDATE operation SET finished_at = NULL, state = 'in_flight', next_attempt_at = NULL
        WHERE payment_id = %s""",
    "finished_operation_rests": "UPDATE operation SET next_attempt_at = now() WHERE payment_id = %s",
    "timeline_has_no_gap": "DELETE FROM timeline_entry WHERE payment_id = %s AND sequence = 2",
    "timeline_ends_at_status": "UPDATE payment SET status = 'authorized' WHERE id = %s",
    "timeline_moves_by_the_table": """
        UPDATE timeline_entry SET from_status = 'failed' WHERE payment_id = %s AND sequence = 2""",
    "outbox_is_in_the_history": """
        UPDATE timeline_entry SET announced_id = gen_random_uuid()
        WHERE payment_id = %s AND announced_type = 'payment-succeeded'""",
}
# For these the payment to be broken is one that was declined.
OF_A_DECLINED = {"open_has_a_charge_left"}


def lives(bench: Bench) -> dict[str, uuid.UUID]:
    """Payments of every kind; the ids of a paid one and of a declined one."""
    operations = {"paid": bench.order(), "declined": bench.order(DECLINED_MINOR)}
    for each in operations.values():
        bench.attempt(each)
    bench.order()  # nobody has begun with it
    bench.order(cart_id=new_uuid(), order_id=None)
    bench.attempt(bench.order(), fault="lost_response")  # nobody knows yet
    refunded = bench.order(10_000)
    bench.attempt(refunded)
    bench.attempt(refund(bench, refunded, 4_000).id)
    refund(bench, refunded, 1_000)
    bench.attempt(capture(bench, hold(bench), 500).id)
    bench.attempt(cancel_of(bench, hold(bench)))
    cancel(bench, bench.order(capture_method=CaptureMethod.MANUAL))
    accounts(bench)
    return {name: bench.payment(each).id for name, each in operations.items()}


def accounts(bench: Bench) -> None:
    """Payments of an account: recorded and no more, processed, and given up before that."""
    command = CreatePayment(money=Money(10_000, "USD"), customer_id="ada", unasked=True)
    after: dict[str, Any] = {"recovery_after_s": NOT_DUE_S}
    _, asked, given_up = (
        create_payment(bench.sessions, command, ORIGIN, simulated=True, **after).payment.id for _ in range(3)
    )
    operation = process_payment(bench.sessions, asked, ORIGIN, **after).operation
    assert operation is not None
    bench.attempt(operation.id)
    cancel_payment(bench.sessions, given_up, None, ORIGIN, **after)


def cancel_of(bench: Bench, held: uuid.UUID) -> uuid.UUID:
    """Ask for a hold to be let go; return the operation."""
    operation = cancel(bench, held).operation
    assert operation is not None
    return operation.id


def unguarded(stored: Stored) -> None:
    """Drop whatever keeps the database from holding what it must not, in this test's database alone."""
    for row in stored.rows("pg_constraint"):
        if row["contype"] == "c" and row["conrelid"]:
            table = sql.Identifier(*_table_of(stored, row["conrelid"]))
            stored._execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(row["conname"]))
            )
    for row in stored.rows("pg_indexes"):
        if row["schemaname"] == "public" and row["indexname"].startswith("uq_"):
            stored._execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(row["indexname"])))


def _table_of(stored: Stored, number: int) -> tuple[str, ...]:
    (row,) = stored._execute(sql.SQL("SELECT {}::regclass::text AS name").format(number))
    return (str(row["name"]),)


def found(bench: Bench) -> set[tuple[str, uuid.UUID]]:
    """What is broken now."""
    ids = [row["id"] for row in Stored(bench.settings.database_url).rows("payment")]
    with alone(bench.sessions) as connection:
        return set(broken(connection, ids))


def figures(bench: Bench) -> dict[str, float]:
    """What Prometheus is told of each invariant."""
    collected = Figures(bench.sessions, connect_redis(bench.settings.redis_url)).collect()
    (family,) = [each for each in collected if each.name == "payment_invariant_violations"]
    return {each.labels["invariant"]: each.value for each in family.samples}


def test_payments_that_lived_by_the_rules_break_nothing(bench: Bench) -> None:
    """Paid, declined, new, unknown, refunded in part, captured, cancelled: whole, and the figures are 0."""
    lives(bench)
    assert found(bench) == set()
    assert take_turn(bench.sessions) > 0
    assert figures(bench) == dict.fromkeys(INVARIANTS, 0)
    status, said = operate("invariants")
    assert (status, "timeline_has_no_gap" in said) == (0, True), said


def test_every_invariant_can_be_broken(bench: Bench) -> None:
    """Each by a change behind the service's back: it is named with the payment's id."""
    assert set(BREAKING) == set(INVARIANTS)
    made = lives(bench)
    stored = Stored(bench.settings.database_url)
    unguarded(stored)
    ids = [row["id"] for row in stored.rows("payment")]
    for name, statement in BREAKING.items():
        payment_id = made["declined" if name in OF_A_DECLINED else "paid"]
        with bench.sessions() as session:
            session.connection().exec_driver_sql(statement, (payment_id,))
            assert (name, payment_id) in broken(session.connection(), ids), name
            session.rollback()
    assert found(bench) == set()


def test_a_violation_is_kept_until_it_is_mended(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The scheduled check finds it, in whatever corner, tells of it once, and forgets it when it is over."""
    payment_id = lives(bench)["paid"]
    stored = Stored(bench.settings.database_url)
    stored.change("UPDATE payment SET transaction_id = NULL WHERE id = %s", payment_id)
    for _ in range(2):
        take_turn(bench.sessions)
    assert capsys.readouterr().out.count("an invariant is broken") == 1
    (row,) = stored.rows("invariant_violation")
    assert (row["invariant"], row["payment_id"]) == ("paid_has_reference", payment_id)
    assert {name for name, value in figures(bench).items() if value} == {"paid_has_reference"}
    status, said = operate("invariants", "--json")
    told, _ = json.JSONDecoder().raw_decode(said)  # the progress stands behind it, on standard error
    assert (status, told["violations"]["paid_has_reference"]) == (1, [str(payment_id)])
    assert operate("invariants", "--payment", str(payment_id))[0] == 1
    assert operate("invariants", "--payment", new_uuid())[0] == 0
    stored.change("UPDATE payment SET transaction_id = 'ch_1' WHERE id = %s", payment_id)
    take_turn(bench.sessions)
    assert stored.rows("invariant_violation") == []
    assert sum(figures(bench).values()) == 0


def test_what_has_changed_is_looked_at_before_its_turn_among_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all payments some get a turn, round and round; what has announced something is looked at soon."""
    lives(bench)
    monkeypatch.setattr(auditing, "ALL_IN_A_TURN", 1)
    stored = Stored(bench.settings.database_url)
    ids = sorted(row["id"] for row in stored.rows("payment"))
    take_turn(bench.sessions)
    stored.change("UPDATE timeline_entry SET at = at - interval '1 minute'")
    stored.change(
        "UPDATE invariant_pass SET reached_at = reached_at - interval '1 hour' WHERE name = 'changed'"
    )
    stored.change(
        "UPDATE payment SET captured_minor = 0, refunded_minor = 0, refund_reserved_minor = 0"
        " WHERE status = 'partially_refunded'"
    )
    take_turn(bench.sessions)
    assert {row["invariant"] for row in stored.rows("invariant_violation")} >= {"status_fits_sums"}
    reached = {row["name"]: row for row in stored.rows("invariant_pass")}
    assert reached["all"]["reached_id"] == ids[1]
    for _ in ids[1:]:
        take_turn(bench.sessions)
    reached = {row["name"]: row for row in stored.rows("invariant_pass")}
    assert reached["all"]["finished_at"] is not None
    assert reached["all"]["reached_id"] in {None, ids[0]}
