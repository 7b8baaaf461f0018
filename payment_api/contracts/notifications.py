"""Notifications: subscribers register endpoints, see how deliveries went, and have them sent again."""

import uuid
from http import HTTPStatus
from typing import Any

import flask
from flask_smorest import Blueprint

from payment_api.access import id_of_path
from payment_api.contracts import notifications_schemas as schemas
from payment_api.http import StrictParser
from payment_api.principal import Role, current_principal
from payment_api.services import services
from shared.commands import deliveries, endpoints
from shared.commands.endpoints import Wish
from shared.database import reading
from shared.events import rfc3339
from shared.models_notifications import NotificationDelivery, NotificationEndpoint

PREFIX = "/notification-endpoints"
LISTED = 500
COLUMNS = {
    "url": "url", "eventTypes": "event_types", "description": "description", "enabled": "enabled",
}  # fmt: skip

ENDPOINT = {
    "id": "01a1fb33-e256-72b0-aefd-9db4d41d3170",
    "url": "https://shop.example/hooks",
    "eventTypes": ["payment-succeeded", "payment-failed"],
    "description": None,
    "state": "enabled",
    "disabledReason": None,
    "failingSince": None,
    "previousSecretUntil": None,
    "createdAt": "2026-11-20T23:04:03.926Z",
}
DELIVERY = {
    "eventId": "01a1fb33-e256-72b0-aefd-9db4d41d3171",
    "type": "payment-succeeded",
    "paymentId": "01a1fb33-e256-72b0-aefd-9db4d41d316f",
    "state": "pending",
    "attempts": 2,
    "lastStatus": 503,
    "lastError": "answered 503",
    "nextAttemptAt": "2026-11-20T23:04:24.100Z",
    "createdAt": "2026-11-20T23:04:04.174Z",
    "endedAt": None,
}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="  # noqa: S105 - an example
OK = {"success": True, "errorMessage": None}


class NotificationBlueprint(Blueprint):
    """A blueprint that reads requests strictly."""

    ARGUMENTS_PARSER = StrictParser()


blueprint = NotificationBlueprint(
    "notifications", __name__, url_prefix=PREFIX, description="Webhooks to subscribers, for every event"
)


@blueprint.route("", methods=["POST"])
@blueprint.arguments(schemas.NewEndpointSchema(), example={"url": "https://shop.example/hooks"})
@blueprint.response(
    HTTPStatus.CREATED,
    schemas.EndpointSecretSchema,
    description="Registered; the secret is shown this once",
    example={**OK, "endpoint": ENDPOINT, "secret": SECRET},
)
def post_endpoint(body: dict[str, Any]) -> flask.Response:
    """Register an endpoint: from now on it is told of what happens to every payment."""
    endpoint, secret = endpoints.add_endpoint(
        services().sessions,
        _wish({"eventTypes": None, "description": None, **body}),
        current_principal().id,
        services().outbound,
        services().sealer,
    )
    flask.g.facts = {"endpoint_id": str(endpoint.id)}
    return _endpoint(endpoint, HTTPStatus.CREATED, secret=secret)


@blueprint.route("", methods=["GET"])
@blueprint.response(HTTPStatus.OK, schemas.EndpointListSchema, example={**OK, "endpoints": [ENDPOINT]})
def list_endpoints() -> flask.Response:
    """List the caller's endpoints; an operator sees everybody's."""
    with reading(services().sessions) as session:
        found = endpoints.list_endpoints(session, _owner(), LISTED)
    return flask.jsonify(**OK, endpoints=[_show(each) for each in found])


@blueprint.route("/<endpoint_id>", methods=["GET"])
@blueprint.response(HTTPStatus.OK, schemas.EndpointEnvelopeSchema, example={**OK, "endpoint": ENDPOINT})
def get_endpoint(endpoint_id: str) -> flask.Response:
    """Show an endpoint, and how it has done lately."""
    return _endpoint(_find(endpoint_id))


@blueprint.route("/<endpoint_id>", methods=["PATCH"])
@blueprint.arguments(schemas.EndpointChangeSchema(), example={"enabled": True})
@blueprint.response(HTTPStatus.OK, schemas.EndpointEnvelopeSchema, example={**OK, "endpoint": ENDPOINT})
def patch_endpoint(body: dict[str, Any], endpoint_id: str) -> flask.Response:
    """Change an endpoint, switch it off, or on again after it has failed for days."""
    changed = endpoints.change_endpoint(
        services().sessions, id_of_path(endpoint_id), _owner(), _wish(body), services().outbound
    )
    return _endpoint(changed)


@blueprint.route("/<endpoint_id>", methods=["DELETE"])
@blueprint.response(HTTPStatus.OK, schemas.EndpointEnvelopeSchema, example={**OK, "endpoint": ENDPOINT})
def delete_endpoint(endpoint_id: str) -> flask.Response:
    """Let go of an endpoint; what waits for it is dropped. It is shown as it was."""
    endpoint = _find(endpoint_id)
    endpoints.remove_endpoint(services().sessions, endpoint.id, _owner())
    return _endpoint(endpoint)


@blueprint.route("/<endpoint_id>/secret", methods=["POST"])
@blueprint.response(
    HTTPStatus.OK,
    schemas.EndpointSecretSchema,
    description="The new secret, shown this once; the one before signs beside it for 24 hours",
    example={**OK, "endpoint": ENDPOINT, "secret": SECRET},
)
def post_secret(endpoint_id: str) -> flask.Response:
    """Replace an endpoint's secret; for a day webhooks are signed with both."""
    endpoint, secret = endpoints.renew_secret(
        services().sessions, id_of_path(endpoint_id), _owner(), services().sealer
    )
    return _endpoint(endpoint, secret=secret)


@blueprint.route("/<endpoint_id>/deliveries", methods=["GET"])
@blueprint.arguments(schemas.DeliveryQuerySchema(), location="query")
@blueprint.response(
    HTTPStatus.OK, schemas.DeliveryListSchema, example={**OK, "deliveries": [DELIVERY], "nextCursor": None}
)
def list_deliveries(query: dict[str, Any], endpoint_id: str) -> flask.Response:
    """List what was, is or will be delivered to an endpoint, newest event first."""
    endpoint, limit = _find(endpoint_id), query["limit"]
    wanted = deliveries.Wanted(
        state=query.get("state"),
        payment_id=_uuid(query.get("paymentId")),
        before=_uuid(query.get("cursor")),
        limit=limit + 1,
    )
    with reading(services().sessions) as session:
        found = deliveries.list_deliveries(session, endpoint.id, wanted)
    shown = found[:limit]
    return flask.jsonify(
        **OK,
        deliveries=[_show_delivery(each) for each in shown],
        nextCursor=str(shown[-1].event_id) if len(found) > limit else None,
    )


@blueprint.route("/<endpoint_id>/deliveries/<event_id>/resend", methods=["POST"])
@blueprint.response(
    HTTPStatus.ACCEPTED,
    schemas.DeliveryEnvelopeSchema,
    description="It is delivered again, under the same webhook-id",
    example={**OK, "delivery": DELIVERY | {"attempts": 0, "lastStatus": None, "lastError": None}},
)
def post_resend_one(endpoint_id: str, event_id: str) -> tuple[flask.Response, int]:
    """Deliver one event again, whatever became of it."""
    endpoint = _find(endpoint_id)
    delivery = deliveries.send_again(services().sessions, endpoint.id, id_of_path(event_id))
    return flask.jsonify(**OK, delivery=_show_delivery(delivery)), HTTPStatus.ACCEPTED


@blueprint.route("/<endpoint_id>/resend", methods=["POST"])
@blueprint.arguments(schemas.ResendSchema(), example={"since": "2026-11-20T08:00:00Z"})
@blueprint.response(
    HTTPStatus.ACCEPTED,
    schemas.ResentSchema,
    description="So many events are delivered again, or for the first time",
    example={**OK, "count": 17},
)
def post_resend(body: dict[str, Any], endpoint_id: str) -> tuple[flask.Response, int]:
    """Deliver again everything that happened since then, also what an endpoint has missed."""
    endpoint = _find(endpoint_id)
    count = deliveries.send_all_again(
        services().sessions, endpoint.id, endpoint.event_types, body["since"], body.get("until")
    )
    return flask.jsonify(**OK, count=count), HTTPStatus.ACCEPTED


def _wish(body: dict[str, Any]) -> Wish:
    return Wish(fields={COLUMNS[name]: value for name, value in body.items()})


def _owner() -> str | None:
    """Whose endpoints the caller may see: its own; None for an operator: everybody's."""
    caller = current_principal()
    return None if caller.role is Role.OPERATOR else caller.id


def _find(endpoint_id: str) -> NotificationEndpoint:
    with reading(services().sessions) as session:
        return endpoints.find_endpoint(session, id_of_path(endpoint_id), _owner())


def _uuid(text: str | None) -> uuid.UUID | None:
    return uuid.UUID(text) if text else None


def _endpoint(endpoint: NotificationEndpoint, status: int = HTTPStatus.OK, **secret: str) -> flask.Response:
    body = flask.jsonify(**OK, endpoint=_show(endpoint), **secret)
    return flask.make_response(body, status)


def _show(endpoint: NotificationEndpoint) -> dict[str, Any]:
    return {
        "id": str(endpoint.id),
        "url": endpoint.url,
        "eventTypes": endpoint.event_types,
        "description": endpoint.description,
        "state": str(endpoint.state),
        "disabledReason": endpoint.disabled_reason,
        "failingSince": rfc3339(endpoint.failing_since) if endpoint.failing_since else None,
        "previousSecretUntil": rfc3339(endpoint.previous_until) if endpoint.previous_until else None,
        "createdAt": rfc3339(endpoint.created_at),
    }


def _show_delivery(delivery: NotificationDelivery) -> dict[str, Any]:
    return {
        "eventId": str(delivery.event_id),
        "type": delivery.type,
        "paymentId": str(delivery.payment_id),
        "state": str(delivery.state),
        "attempts": delivery.attempts,
        "lastStatus": delivery.last_status,
        "lastError": delivery.last_error,
        "nextAttemptAt": rfc3339(delivery.next_attempt_at) if delivery.next_attempt_at else None,
        "createdAt": rfc3339(delivery.created_at),
        "endedAt": rfc3339(delivery.ended_at) if delivery.ended_at else None,
    }
