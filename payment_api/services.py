"""What the routes work with, made once per process and handed to create_app."""

from dataclasses import dataclass
from typing import cast

import flask
import redis

from payment_api.jwks import Jwks
from payment_api.rate_limits import RateLimits, read_limit
from payment_api.tokens import Tokens
from payment_api.waiting import Waiting
from shared.commands.accounts import Accounts, LoginLimits
from shared.commands.limits import AmountLimits
from shared.database import Sessions, connect, connections_in_use, make_sessions
from shared.gateways.customers import CustomerGateway
from shared.gateways.stripe_customers import StripeCustomers
from shared.orders import Orders, make_orders
from shared.outbound import Caller
from shared.passwords import Passwords
from shared.sealing import Sealer
from shared.settings import Settings
from shared.wakeup import Listener, connect_redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The settings, the database, who is let in and how often, who waits, accounts, gateway of customers."""

    settings: Settings
    sessions: Sessions
    redis: redis.Redis
    waiting: Waiting
    limits: AmountLimits
    customers: CustomerGateway | None  # None without a key: everything else works without the gateway
    tokens: Tokens
    accounts: Accounts
    rate_limits: RateLimits
    sealer: Sealer
    outbound: Caller  # checks the addresses that subscribers name
    orders: Orders | None = None  # None: any order is accepted

    def pool_in_use(self) -> int:
        """Database connections that requests hold at this moment."""
        return connections_in_use(self.sessions.kw["bind"])


def make_services(settings: Settings) -> Services:
    """Everything that the routes need; opens no connection yet."""
    engine = connect(
        settings.database_url,
        pool_size=settings.database_pool_size,
        application="payment-api",
        sealer=Sealer.of(settings),
    )
    sessions = make_sessions(engine)
    client = connect_redis(settings.redis_url)
    return Services(
        settings=settings,
        sessions=sessions,
        redis=client,
        waiting=Waiting(sessions, Listener(client), settings.wait_slots),
        limits=AmountLimits(settings.amount_minimums, settings.amount_maximums),
        tokens=make_tokens(settings),
        rate_limits=_rate_limits(settings, client),
        customers=_customers(settings),
        orders=make_orders(settings),
        sealer=Sealer.of(settings),
        outbound=Caller(allow_private=settings.private_notifications),
        accounts=_accounts(settings, sessions),
    )


def _accounts(settings: Settings, sessions: Sessions) -> Accounts:
    return Accounts(
        sessions=sessions,
        sealer=Sealer.of(settings),
        passwords=Passwords(),
        limits=LoginLimits(
            per_email=settings.login_failures_per_email, per_address=settings.login_failures_per_address
        ),
    )


def make_tokens(settings: Settings) -> Tokens:
    """The tokens that these settings say are to be taken."""
    return Tokens(
        (settings.jwt_secret, settings.jwt_secret_previous),
        Jwks(settings.jwks_url) if settings.jwks_url else None,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )


def _rate_limits(settings: Settings, client: redis.Redis) -> RateLimits:
    limits = (
        read_limit("customer", settings.rate_limit_customer),
        read_limit("principal", settings.rate_limit_principal),
        read_limit("address", settings.rate_limit_address),
    )
    return RateLimits(client, limits, processes=settings.web_workers)


def _customers(settings: Settings) -> CustomerGateway | None:
    if not settings.stripe_secret_key:
        return None
    return StripeCustomers(
        settings.stripe_secret_key, settings.stripe_api_url, pool_size=settings.database_pool_size
    )


def services() -> Services:
    """The services of the app that handles this request."""
    return cast("Services", flask.current_app.extensions["services"])
