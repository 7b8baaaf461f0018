"""Work off the gateway's webhooks: a hint each, upon which the gateway is asked how things really stand."""

from typing import Any

from payment_worker import inbox, news
from payment_worker.foreign import NotYet, adopt_dispute, adopt_refunds
from payment_worker.inbox import Verdict, again
from payment_worker.metrics import WEBHOOKS
from payment_worker.news import Known, News
from payment_worker.processing import Worker
from payment_worker.standing import Overtaken, Unanswerable, adopt_standing
from shared.database import is_database_down
from shared.gateways import GatewayUnavailable
from shared.gateways.stripe_webhooks import HANDLED
from shared.models import InboxState
from shared.payments import PAID
from shared.telemetry import get_logger, log_context

log = get_logger(__name__)

ACTOR = "stripe webhook"
# With the pauses between them: some two minutes for our own row, or its reference, to appear; and some
# minutes for whatever makes one fail to pass.
MAX_LOOKS = 8
MAX_FAILURES = 10
# An object of these carries our ids itself; a refund or a dispute carries them only where we made it.
CARRIES_OUR_IDS = {news.INTENT, news.CHARGE}


def drain(worker: Worker) -> int:
    """Process everything that is due; return how many webhooks that was.

    Those that need nothing are settled together; for each other one the gateway is asked.
    """
    total = 0
    while messages := inbox.take(worker.sessions):
        total += len(messages)
        known = news.find(worker.sessions, messages)
        asking, told = [], []
        for message in messages:
            if (verdict := _at_once(message, known.get(message.message_id))) is None:
                asking.append(message)
            else:
                told.append((message, verdict))
        _settle(worker, told)
        for number, message in enumerate(asking):
            if not _ask(worker, message):
                # No use to ask for the others now: all come back in a while.
                _settle(worker, [(each, again(each)) for each in asking[number + 1 :]])
                return total
        if len(messages) < inbox.BATCH:
            break
    return total


def _at_once(message: Any, known: Known | None) -> Verdict | None:
    """What can be said of a webhook from our rows alone; None when the gateway has to be asked."""
    if message.type not in HANDLED:
        return Verdict(InboxState.IGNORED)
    if known is None:
        return _not_ours(message)
    match news.news_of(message.type, message.payload, known):
        case News.NONE:
            return Verdict(InboxState.PROCESSED, known.payment.id)
        case News.LATER:
            return again(message, payment_id=known.payment.id)
    return None


def _not_ours(message: Any) -> Verdict:
    """Nothing of ours has it: it may come before our own record, or be another system's."""
    is_strange = news.subject(message.type) in CARRIES_OUR_IDS and not message.payload["metadata"]
    if is_strange or message.attempts >= MAX_LOOKS:
        return Verdict(InboxState.UNMATCHED, error="no payment of ours has this object")
    return again(message)


def _ask(worker: Worker, message: Any) -> bool:
    """Ask the gateway and record what it says; False when it could not be asked."""
    with log_context(webhook_id=message.message_id, webhook_type=message.type):
        try:
            verdict = _verdict(worker, message)
        except GatewayUnavailable as error:
            log.info("the gateway could not be asked about a webhook", reason=str(error))
            _settle(worker, [(message, again(message, str(error)))])
            return False
        except (NotYet, Overtaken) as error:
            verdict = again(message, f"{type(error).__name__}: {error}")
        except Exception as error:
            if is_database_down(error):
                raise
            verdict = _failed(message, error)
        _settle(worker, [(message, verdict)])
    return True


def _failed(message: Any, error: Exception) -> Verdict:
    # The class of an unforeseen error and no more: its text may hold what belongs in no table.
    reason = str(error) if isinstance(error, Unanswerable) else type(error).__name__
    if message.attempts >= MAX_FAILURES:
        log.error("a webhook is given up", error=reason, exc_info=error)
        return Verdict(InboxState.FAILED, error=reason)
    log.warning("a webhook could not be processed; it is tried again", error=reason, exc_info=error)
    return again(message, reason)


def _verdict(worker: Worker, message: Any) -> Verdict:
    """Look again, now that it is this webhook's turn: another one may have told the same."""
    known = news.find(worker.sessions, [message]).get(message.message_id)
    if (verdict := _at_once(message, known)) is not None or known is None:
        return verdict or _not_ours(message)
    payment, primary = known.payment, known.primary
    document, about = message.payload, news.subject(message.type)
    ref = news.charge_of(message.type, document) or payment.gateway_ref or ""
    with log_context(payment_id=payment.id):
        if about == news.DISPUTE:
            adopt_dispute(worker, primary.id, document["id"], ACTOR)
        elif about == news.INTENT:
            adopt_standing(worker, primary.id, ref, ACTOR)
        elif about == news.REFUND and (own := known.refund(document)):
            adopt_standing(worker, own.id, document["id"], ACTOR)
        else:
            if payment.status not in PAID and not payment.captured_minor:
                # What is refunded was paid before, whichever webhook comes first.
                adopt_standing(worker, primary.id, ref, ACTOR)
            adopt_refunds(worker, primary.id, ref, ACTOR)
        log.info("a webhook was processed")
    return Verdict(InboxState.PROCESSED, payment.id)


def _settle(worker: Worker, verdicts: list[tuple[Any, Verdict]]) -> None:
    inbox.settle(worker.sessions, verdicts)
    for message, verdict in verdicts:
        if verdict.state is not InboxState.RECEIVED:
            WEBHOOKS.labels(message.type, verdict.state).inc()
