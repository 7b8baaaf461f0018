"""Whether the order service is to hear how a payment ends, and with whose token."""

from datetime import UTC, datetime

import flask
import jwt

from payment_api.services import services
from shared.commands.create import Callback
from shared.notifications import ORDER_TOKEN


def callback() -> Callback | None:
    """What to keep with a new payment of this request; None without an order service.

    The caller's token is passed on to the order service, so it is kept until then, sealed.
    """
    if not services().settings.order_status_url:
        return None
    _, _, token = flask.request.headers.get("Authorization", "").partition(" ")
    if not token.strip():
        return Callback()
    # Signature and times were checked before anything of the request was read.
    claims = jwt.decode(token.strip(), options={"verify_signature": False})
    until = datetime.fromtimestamp(claims["exp"], UTC)
    return Callback(sealed_token=services().sealer.seal(token.strip(), ORDER_TOKEN), token_until=until)
