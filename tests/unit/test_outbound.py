"""Which addresses a subscriber may name: those of the public internet, over TLS, and no others."""

import socket
from typing import Any

import pytest

from shared.outbound import MAX_URL, Caller, Forbidden, is_public

PUBLIC = "93.184.215.14"


def resolving(*addresses: str) -> Any:
    """Return a resolver for which every name has these addresses."""

    def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    return resolve


def refusal(url: str, *addresses: str, allow_private: bool = False) -> str:
    """Return why a URL is refused; empty when it may be called."""
    caller = Caller(allow_private=allow_private, resolve=resolving(*(addresses or (PUBLIC,))))
    try:
        caller.check(url)
    except Forbidden as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - nothing listens there, it is to be refused
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16",
        "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
        "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
        "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused(address: str) -> None:
    """Private, loopback, link-local, multicast, reserved and metadata addresses, in whatever disguise."""
    assert not is_public(address)
    assert "not public" in refusal("https://shop.example/", address)
    assert "not public" in refusal("https://shop.example/", PUBLIC, address), "one of several is enough"


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808"]
)
def test_what_is_public_may_be_called(address: str) -> None:
    """Also over a NAT64 prefix, by which networks with IPv6 alone reach everything else."""
    assert is_public(address)
    assert refusal("https://shop.example/hooks?from=us", address) == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/", "ftp://shop.example/", "//shop.example/", "shop.example", "https://",
        "https:///hooks", "https://user@shop.example/", "https://user:word@shop.example/",
        "https://shop.example@10.0.0.1/", "https://shop.example:0/", "https://shop.example:99999/",
        "https://shop.example:x/", "https://shop.example/#part", "https://shop.example/\r\nHost: x",
        "https://shop.example/a b", "https://shop.example\\@10.0.0.1/", "https://sh\u00f6p.example/",
        "https://[::1/", f"https://shop.example/{'x' * MAX_URL}", "javascript:alert(1)", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_plain_https_url_is_refused(url: str) -> None:
    """Other schemes, credentials, fragments, control characters and what parsers disagree about."""
    assert refusal(url)


def test_private_addresses_and_plain_http_only_where_they_are_allowed() -> None:
    """For tests and the local stack; credentials are refused there as well."""
    assert refusal("http://localhost:8000/hooks", "127.0.0.1", allow_private=True) == ""
    assert refusal("http://localhost:8000/hooks", "127.0.0.1")
    assert refusal("http://user@localhost/", "127.0.0.1", allow_private=True)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::1]"])
def test_other_spellings_of_this_machine_are_refused(host: str) -> None:
    """What counts is where the system's own resolver leads, not how it is written."""
    with pytest.raises(Forbidden):
        Caller(allow_private=False).check(f"https://{host}/")


def test_a_name_that_leads_nowhere_is_refused() -> None:
    """A typing error shows at once, and not after three days."""

    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(Forbidden, match="cannot be found"):
        Caller(allow_private=False, resolve=fail).check("https://shop.example/")
