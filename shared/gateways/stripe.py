"""The Stripe adapter: our operations in Stripe's words, and Stripe's answers and errors in ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import stripe

from shared.gateways import (
    Authorized,
    Cancelled,
    Dispute,
    Failed,
    GatewayUnavailable,
    Misconfigured,
    Outcome,
    Request,
    SeenRefund,
    Sought,
    Succeeded,
    Transient,
    Unknown,
    Waiting,
)
from shared.gateways.exchanges import Exchange, keep
from shared.gateways.stripe_errors import classify
from shared.gateways.stripe_http import NeverSent, PooledClient
from shared.gateways.stripe_reading import dispute_of, intent_outcome, refund_outcome, seen_refunds
from shared.gateways.stripe_requests import INTENTS, REFUNDS, TARGET, WITH_CHARGE, address, freeze
from shared.payments import PRIMARY, OperationKind
from shared.telemetry import get_logger

PAGE = 100

log = get_logger(__name__)


class StripeGateway:
    """Stripe, or a simulator that speaks its language at `api_url`."""

    def __init__(
        self,
        secret_key: str,
        api_url: str = "",
        *,
        pool_size: int = 10,
        before_page: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the process's one client, which keeps up to `pool_size` connections; no call is made yet.

        `before_page` is called before each further page or object of a look; what it raises ends the look.
        """
        self.simulated = bool(api_url)
        self._before_page = before_page
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_url} if api_url else {},
            http_client=PooledClient(pool_size),
            max_network_retries=0,
        )

    def freeze(self, request: Request) -> dict[str, Any]:
        """The parameters of the call that carries this request out."""
        return freeze(request, simulated=self.simulated)

    def send(self, kind: OperationKind, parameters: Mapping[str, Any], key: str) -> Outcome:
        """Carry out an operation under the idempotency key `key`."""
        path, body = address(kind, parameters)
        try:
            answer = self._call("post", path, idempotency_key=key, **body)
        except stripe.StripeError as error:
            outcome = _outcome_of(error)
            if kind in PRIMARY or not isinstance(outcome, Failed):
                return outcome
            return self._truth(kind, parameters[TARGET], key, outcome)
        if kind is OperationKind.REFUND:
            return refund_outcome(answer)
        return intent_outcome(answer, answers_us=kind in PRIMARY)

    def look_up(self, kind: OperationKind, gateway_ref: str) -> Outcome:
        """Retrieve a PaymentIntent or a refund and read how it stands."""
        is_refund = kind is OperationKind.REFUND
        path, more = (REFUNDS, {}) if is_refund else (INTENTS, WITH_CHARGE)
        try:
            answer = self._call("get", f"{path}/{gateway_ref}", **more)
        except stripe.StripeError as error:
            outcome = _outcome_of(error)
            # Not finding what we know to be there says something about our account, not about the payment.
            return Misconfigured(reason=outcome.reason) if isinstance(outcome, Failed) else outcome
        return refund_outcome(answer) if is_refund else intent_outcome(answer)

    def _truth(self, kind: OperationKind, intent_ref: str, key: str, refused: Failed) -> Outcome:
        """What has come about where a capture, a cancel or a refund was refused.

        Mostly somebody else was quicker: a dashboard, or an attempt of ours whose answer was lost.
        """
        if kind is OperationKind.REFUND:
            try:
                ours = [each for each in self.refunds_of(intent_ref) if each.operation_id == _operation(key)]
            except GatewayUnavailable as error:
                return Transient(reason=str(error))
            return ours[-1].outcome if ours else refused
        standing = self.look_up(kind, intent_ref)
        if isinstance(standing, Succeeded | Cancelled):
            return standing
        if isinstance(standing, Authorized | Waiting):
            return refused
        return Transient(reason="refused, and the gateway could not be asked why")

    def _call(self, method: str, path: str, **parameters: Any) -> dict[str, Any]:
        """Call and return the answer as it came: making it the SDK's objects would cost as much again."""
        try:
            answer = self._client.raw_request(method, path, **parameters)
        except stripe.StripeError as error:
            said = error.json_body or {"error": type(error).__name__}
            keep(Exchange(method, path, parameters, error.http_status, said))
            raise
        keep(Exchange(method, path, parameters, answer.code, answer.data))
        return cast("dict[str, Any]", answer.data)

    def find(self, sought: Sequence[Sought], since: datetime) -> Mapping[str, list[Outcome]]:
        """List the PaymentIntents and refunds created since then, once each, and match our ids in metadata.

        A list and not a search: Stripe's search lags and is not offered everywhere. What a capture or a
        cancel has done is seen on its PaymentIntent.
        """
        found: dict[str, list[Outcome]] = {each.operation_id: [] for each in sought}
        kinds = {each.kind for each in sought}
        created = {"created": {"gte": int(since.timestamp())}, "limit": PAGE}
        if kinds & PRIMARY:
            for document in self._list(INTENTS, **created, expand=["data.latest_charge"]):
                _match(found, document, lambda intent: intent_outcome(intent, answers_us=True))
        if OperationKind.REFUND in kinds:
            for document in self._list(REFUNDS, **created):
                _match(found, document, refund_outcome)
        for number, each in enumerate(sought):
            if each.kind in {OperationKind.CAPTURE, OperationKind.CANCEL}:
                if number:
                    self._before_page()
                self._find_settlement(found, each)
        return found

    def _find_settlement(self, found: dict[str, list[Outcome]], sought: Sought) -> None:
        if not sought.gateway_ref:
            del found[sought.operation_id]
            return
        standing = self.look_up(sought.kind, sought.gateway_ref)
        if isinstance(standing, Transient | Unknown):
            raise GatewayUnavailable(standing.reason)
        if isinstance(standing, Misconfigured):
            # An intent that cannot be read must not keep the others in doubt, and is no evidence of absence.
            log.error("a charge in doubt cannot be looked up", operation_id=sought.operation_id)
            del found[sought.operation_id]
        elif isinstance(standing, Succeeded | Cancelled):
            found[sought.operation_id].append(standing)

    def refunds_of(self, gateway_ref: str) -> list[SeenRefund]:
        """Every refund of a PaymentIntent, oldest first."""
        intent = self._get(f"{INTENTS}/{gateway_ref}", **WITH_CHARGE)
        if not (charge := intent.get("latest_charge")):
            return []
        return seen_refunds(list(self._list(REFUNDS, payment_intent=gateway_ref, limit=PAGE)), charge)

    def dispute(self, gateway_ref: str) -> Dispute:
        """Retrieve a dispute."""
        return dispute_of(self._get(f"/v1/disputes/{gateway_ref}"))

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        try:
            return self._call("get", path, **parameters)
        except stripe.StripeError as error:
            raise GatewayUnavailable(f"{type(error).__name__}: {error.http_status}") from error

    def _list(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Every object of a list, a page at a time."""
        while True:
            page = self._get(path, **parameters)
            yield from page["data"]
            if not page["has_more"]:
                return
            self._before_page()
            parameters["starting_after"] = page["data"][-1]["id"]


def _operation(key: str) -> str:
    """The operation that an idempotency key belongs to."""
    return key.partition(":")[0]


def _match(
    found: dict[str, list[Outcome]], document: dict[str, Any], read: Callable[[dict[str, Any]], Outcome]
) -> None:
    """Read what is sought and nothing else: others in the account may do what we cannot make sense of."""
    operation_id = (document.get("metadata") or {}).get("operation_id")
    if operation_id in found:
        found[operation_id].append(read(document))


def _outcome_of(error: stripe.StripeError) -> Outcome:
    headers = error.headers or {}
    body = error.json_body
    details = body.get("error") if isinstance(body, dict) else None
    outcome = classify(
        error.http_status,
        details if isinstance(details, dict) else {},
        replayed=headers.get("Idempotent-Replayed") == "true",
        sent=not isinstance(error, NeverSent),
    )
    log.info("gateway error", outcome=type(outcome).__name__, http_status=error.http_status, code=error.code)
    return outcome
