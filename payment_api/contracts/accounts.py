"""The accounts contract: register, log in, log out."""

from http import HTTPStatus
from typing import Any

import flask
from flask_smorest import Blueprint

from payment_api.contracts import accounts_schemas as schemas
from payment_api.dialects import Dialect
from payment_api.errors import ErrorCode, RequestRefused
from payment_api.http import StrictParser
from payment_api.minting import mint
from payment_api.principal import Role, current_principal
from payment_api.rate_limits import site_of
from payment_api.services import services
from shared.commands.accounts import LogIn, Register
from shared.commands.revocation import revoke

REGISTERED = "Account created"
LOGGED_IN = "Logged in"
LOGGED_OUT = "Logged out"
NOT_CONFIGURED = "This API has no JWT_SECRET, which tokens of accounts need"
HOUR_S = 3600

EMAIL_EXAMPLE = "ada@shop.example"
ACCOUNT_REQUEST = {
    "name": "Ada Lovelace",
    "email": EMAIL_EXAMPLE,
    "password": "correct horse battery staple",
    "phoneNumber": "+1 555 010 9999",
}
LOGIN_REQUEST = {"email": EMAIL_EXAMPLE, "password": ACCOUNT_REQUEST["password"]}


class AccountsBlueprint(Blueprint):
    """A blueprint that reads requests strictly."""

    ARGUMENTS_PARSER = StrictParser()


blueprint = AccountsBlueprint(
    "accounts", __name__, url_prefix="/api/user", description="Accounts, and tokens for them"
)


def refusal(code: ErrorCode, message: str, result: Any = None) -> dict[str, Any]:
    """A refusal in this contract's words."""
    return {"success": False, "message": message, "result": result, "errorCode": code.name}


DIALECT = Dialect("/api/", refusal, "AccountsRefusal")


def succeeded(message: str, result: Any = None) -> dict[str, Any]:
    """An answer in this contract's words."""
    return {"success": True, "message": message, "result": result}


def _logged_in(name: str, token: str) -> dict[str, Any]:
    return {"success": True, "message": LOGGED_IN, "userName": name, "token": token}


@blueprint.route("/register", methods=["POST"])
@blueprint.arguments(schemas.NewAccountSchema(), example=ACCOUNT_REQUEST)
@blueprint.response(
    HTTPStatus.OK,
    schemas.RegisterAnswerSchema,
    example=succeeded(REGISTERED, {"id": "01a1fb33-e256-72b0-aefd-9db4d41d316f"}),
)
@blueprint.alt_response(
    HTTPStatus.CONFLICT,
    schema=schemas.AccountsRefusalSchema,
    description="The email address has an account already",
    example=refusal(ErrorCode.ACCOUNT_EXISTS, "This email address has an account already"),
)
def register(body: dict[str, Any]) -> flask.Response:
    """Make an account; one for each email address."""
    account_id = services().accounts.register(
        Register(
            name=body["name"],
            email=body["email"],
            password=body["password"],
            phone=body["phoneNumber"],
        )
    )
    flask.g.facts = {"account_id": str(account_id)}
    return flask.jsonify(succeeded(REGISTERED, {"id": str(account_id)}))


@blueprint.route("/login", methods=["POST"])
@blueprint.arguments(schemas.LoginSchema(), example=LOGIN_REQUEST)
@blueprint.response(
    HTTPStatus.OK,
    schemas.LoginAnswerSchema,
    example=_logged_in("Ada Lovelace", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"),
)
@blueprint.alt_response(
    HTTPStatus.UNAUTHORIZED,
    schema=schemas.AccountsRefusalSchema,
    description="The email address or the password is wrong; which of them is not said",
    example=refusal(ErrorCode.WRONG_CREDENTIALS, "The email address or the password is wrong"),
)
@blueprint.alt_response(
    HTTPStatus.TOO_MANY_REQUESTS,
    schema=schemas.AccountsRefusalSchema,
    description="Too many logins to this account, or from this network address, have failed lately",
    example=refusal(ErrorCode.TOO_MANY_ATTEMPTS, "Too many logins have failed; try again later"),
)
def login(body: dict[str, Any]) -> flask.Response:
    """Log in: get a token for the routes of payments."""
    settings = services().settings
    if not settings.jwt_secret:
        raise RequestRefused(ErrorCode.ACCOUNTS_NOT_CONFIGURED, NOT_CONFIGURED)
    person = services().accounts.log_in(
        LogIn(email=body["email"], password=body["password"], address=site_of(flask.request.remote_addr))
    )
    flask.g.facts = {"account_id": str(person.account_id)}
    lasts_s = settings.account_token_hours * HOUR_S
    token = mint(settings, str(person.account_id), Role.CUSTOMER, ttl_s=lasts_s)
    return flask.jsonify(_logged_in(person.name, token))


@blueprint.route("/logout", methods=["POST"])
@blueprint.response(HTTPStatus.OK, schemas.LogoutAnswerSchema, example=succeeded(LOGGED_OUT))
def logout() -> flask.Response:
    """Log out: the token that this request brings is refused from now on, everywhere."""
    caller = current_principal()
    assert caller.token_id is not None  # noqa: S101 - these routes take nobody without a token
    assert caller.expires_at is not None  # noqa: S101 - as above
    revoke(services().sessions, caller.token_id, caller.expires_at)
    return flask.jsonify(succeeded(LOGGED_OUT))
