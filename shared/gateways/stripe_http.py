"""How the Stripe SDK reaches the network: one pool of connections, no retries, and errors told apart."""

import urllib.request
from collections.abc import Mapping
from typing import Any

import stripe
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

# Connect quickly or not at all; a charge itself may take a bank a while. Retries are recovery's, so
# that each one is counted.
CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 25


class NeverSent(stripe.APIConnectionError):
    """No connection came about, so the request cannot have arrived."""


class PooledClient(stripe.HTTPClient):
    """An HTTP client for the SDK on urllib3 alone: its usual one spends three times the CPU on each call."""

    name = "urllib3"

    def __init__(self, pool_size: int) -> None:
        """Keep up to `pool_size` connections open; none is opened yet."""
        super().__init__()
        options: dict[str, Any] = {
            "maxsize": pool_size,
            "retries": False,
            "timeout": urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            "ca_certs": stripe.ca_bundle_path,
        }
        # Asked once: looking through the environment for each call costs more than the call.
        proxy = urllib.request.getproxies().get("https")
        self._direct = urllib3.PoolManager(**options)
        self._by_proxy = urllib3.ProxyManager(proxy, **options) if proxy else None

    def request(  # type: ignore[override]
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Make one call. Raises NeverSent, or APIConnectionError when nobody can tell whether it arrived."""
        pool = self._by_proxy if self._by_proxy and url.startswith("https://") else self._direct
        try:
            answer = pool.request(method, url, body=post_data, headers=dict(headers or {}), redirect=False)
        except (ConnectTimeoutError, NewConnectionError, NameResolutionError) as error:
            raise NeverSent(type(error).__name__) from error  # type: ignore[no-untyped-call]
        except HTTPError as error:
            reason = type(error).__name__
            raise stripe.APIConnectionError(reason) from error  # type: ignore[no-untyped-call]
        return answer.data, answer.status, answer.headers

    def close(self) -> None:
        """Close the idle connections."""
        self._direct.clear()
        if self._by_proxy:
            self._by_proxy.clear()
