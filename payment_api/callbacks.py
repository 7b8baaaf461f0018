"""Whether the order service is to hear how a payment ends, and with whose token."""

import flask

from payment_api.principal import current_principal
from payment_api.services import services
from shared.commands.create import Callback
from shared.notifications import ORDER_TOKEN


def callback() -> Callback | None:
    """What to keep with a new payment of this request; None without an order service.

    The caller's token is passed on to the order service, so it is kept until then, sealed.
    """
    if not services().settings.order_status_url:
        return None
    until = current_principal().expires_at
    if until is None:  # let in without a token
        return Callback()
    _, _, token = flask.request.headers["Authorization"].partition(" ")
    return Callback(sealed_token=services().sealer.seal(token.strip(), ORDER_TOKEN), token_until=until)
