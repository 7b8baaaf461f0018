"""The guards of the service, and how each is taken away: by a change of its source, or of its database."""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Guard:
    """A guard by its name, and what its removal changes: texts of modules, or statements to the database."""

    name: str
    changes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    statements: tuple[str, ...] = ()


def _in(module: str, before: str, after: str, *more: tuple[str, str]) -> dict[str, list[tuple[str, str]]]:
    return {module: [(before, after), *more]}


WORKER: Final = "payment_worker.processing"
GUARDS: Final = (
    Guard(
        "the lease of a claim",
        _in(WORKER, "        and (operation.lease_until is None or operation.lease_until < at)\n", "")
        | _in(
            "payment_worker.recovery",
            "            or_(Operation.lease_until.is_(None), Operation.lease_until < now),\n"
            "            Operation.kind",
            "            Operation.kind",
        ),
    ),
    Guard(
        "a message names the attempt",
        _in(WORKER, "        and operation.attempt == expected_attempt\n", ""),
    ),
    Guard(
        "a stale holder supplies only a definite outcome",
        _in(
            WORKER,
            "if operation.attempt != claim.attempt and not isinstance(outcome, TERMINAL):",
            "if False:",
        ),
    ),
    Guard(
        "written only over what was read",
        _in("shared.rows", "for key in GUARDS[shape.model] if number == 0 else ():", "for key in ():"),
    ),
    Guard("one live payment an order (index)", statements=("DROP INDEX uq_payment_live_order",)),
    Guard("one live payment a cart (index)", statements=("DROP INDEX uq_payment_live_cart",)),
    Guard(
        "the payment's lock in capture, cancel and refund",
        _in("shared.commands.operations", ".with_for_update(of=Payment)", ""),
    ),
    Guard(
        "the locks under which outcomes are recorded",
        _in("payment_worker.locking", "LOOK.with_for_update(of=[Payment, Operation])", "LOOK"),
    ),
    Guard(
        "a command from Kafka is noted once",
        _in(
            "shared.commands.received", "        raise AlreadyReceived(message.message_id)", "        return"
        ),
    ),
    Guard(
        "a webhook is stored once",
        _in("payment_api.webhooks", "values(row).on_conflict_do_nothing()", "values(row)"),
    ),
    Guard(
        "an idempotency key is for one request",
        _in("shared.commands.idempotency", "if row.request_hash != request.request_hash:", "if False:"),
    ),
    Guard(
        "an idempotency key is looked up",
        _in(
            "shared.commands.idempotency",
            "row = session.get(IdempotencyKey, (request.principal, request.key))",
            "row = unbind(session, request)",
        ),
    ),
    Guard(
        "an idempotency key's lock",
        _in(
            "shared.commands.idempotency",
            'if not try_lock(session, "idempotency", request.principal, request.key):',
            "if False:",
        ),
    ),
    Guard(
        "refunds count what is reserved",
        _in("shared.commands.refund", " - payment.refund_reserved_minor)", ")"),
    ),
    Guard(
        "a refund reserves",
        _in("shared.commands.operations", "payment.refund_reserved_minor += operation.amount_minor", "pass"),
    ),
    Guard(
        "the table of transitions",
        _in(
            "payment_worker.settling",
            "    if payment.status in PAID or payment.status in DEAD:\n        return\n",
            "",
        )
        | _in("shared.payments", "raise IllegalTransition(current, wanted) from None", "return None"),
    ),
    Guard(
        "an edge announces its event",
        _in(
            "shared.payments",
            "(Status.PROCESSING, Status.SUCCEEDED): Announcement.PAYMENT_SUCCEEDED",
            "(Status.PROCESSING, Status.SUCCEEDED): None",
        ),
    ),
    Guard(
        "deleted from the outbox only with a delivery report",
        _in("payment_worker.relay", '{"ids": list(delivered)}', '{"ids": list(messages)}'),
    ),
    Guard(
        "one event of a payment at a time",
        _in("payment_worker.relay", "if row.aggregateid in payments:", "if False:"),
    ),
    Guard(
        "the recovery sweep",
        _in("payment_worker.recovery", "return [Due(*row) for row in session.execute(push)]", "return []"),
    ),
    Guard(
        "a webhook has the gateway asked",
        _in(
            "payment_worker.webhooks",
            "            return again(message, payment_id=known.payment.id)\n    return None",
            "            return again(message, payment_id=known.payment.id)\n"
            "    return Verdict(InboxState.PROCESSED, known.payment.id)",
        ),
    ),
    Guard(
        "a look counts only if nothing has changed meanwhile",
        _in("payment_worker.standing", "if payment.version != version:", "if False:"),
    ),
    Guard(
        "looked for before a new attempt",
        _in(
            "payment_worker.outcomes",
            "doubt(writes, payment, cause, outcome.reason)",
            "renew_key(writes, payment, cause)",
        ),
    ),
    Guard(
        "absent in two looks apart",
        _in(
            "payment_worker.recovery",
            "renewed = operation.absent_since is not None and look.began - operation.absent_since"
            " >= look.apart",
            "renewed = True",
        ),
    ),
    Guard(
        "a key older than its lifetime is not used",
        _in(WORKER, "at - operation.first_sent_at > KEY_LIFETIME", "False"),
    ),
    Guard(
        "every attempt under the same key",
        _in(
            "shared.models",
            "return str(self.id) if self.key_number == 1",
            "return f'{self.id}:{self.attempt}' if 1",
        ),
    ),
    Guard(
        "a lost answer is unknown, not failed",
        _in(
            "shared.gateways.stripe_errors",
            'return Unknown(reason="the answer was lost")',
            "return declined(error)",
        ),
    ),
    Guard("what is paused is not claimed", _in(WORKER, "        if paused:", "        if False:")),
    Guard(
        "no connection during a gateway call",
        _in(
            WORKER,
            "                outcome = self.gateway.send(operation.kind, operation.request or {},"
            " operation.gateway_key)",
            "                with alone(self.sessions):\n"
            "                    outcome = self.gateway.send(operation.kind, operation.request or {},"
            " operation.gateway_key)",
        ),
    ),
    Guard(
        "offsets are committed after the work",
        _in(
            "payment_worker.consuming",
            "            if not self.handle(batch, stop):",
            "            self._commit([TopicPartition(each.topic() or '', each.partition() or 0,"
            " (each.offset() or 0) + 1) for each in batch])\n"
            "            if not self.handle(batch, stop):",
        ),
    ),
    Guard(
        "paid though it was to be cancelled: given back",
        _in(
            "payment_worker.settling",
            '        give_back(writes, payment, cause, "cancelled while it was being paid")',
            "        pass",
        ),
    ),
)


def guard_named(name: str, among: Sequence[Guard] = GUARDS) -> Guard:
    """The guard of this name. Raises LookupError."""
    for guard in among:
        if guard.name == name:
            return guard
    raise LookupError(name)


def changed(source: str, changes: Sequence[tuple[str, str]]) -> str:
    """The source without a guard. Raises LookupError when the guard is not where it was."""
    for before, after in changes:
        if source.count(before) != 1:
            raise LookupError(f"stands {source.count(before)} times in the source: {before}")
        source = source.replace(before, after)
    return source


def source_of(module: str) -> Path:
    """The file of a module of ours."""
    return ROOT / f"{module.replace('.', '/')}.py"


class _Changed(importlib.machinery.SourceFileLoader):
    changes: Sequence[tuple[str, str]] = ()

    def get_code(self, fullname: str) -> types.CodeType:  # noqa: ARG002 - the protocol
        source = Path(self.path).read_text(encoding="utf-8")
        return compile(changed(source, self.changes), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> Any:
        if fullname not in self._guard.changes:
            return None
        loader = _Changed(fullname, str(source_of(fullname)))
        loader.changes = self._guard.changes[fullname]
        return importlib.machinery.ModuleSpec(fullname, loader, origin=str(source_of(fullname)))


def remove(guard: Guard) -> None:
    """Have this process load the service without the guard; before any of its modules is loaded."""
    if loaded := sorted(set(guard.changes) & set(sys.modules)):
        raise ImportError(f"loaded already: {loaded}")
    sys.meta_path.insert(0, _Finder(guard))
