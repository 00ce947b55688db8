"""Which addresses may be fetched. A page chooses where its links and redirects lead; they must not
lead into our own network.

One parser reads an address (httpx), and what it read is what is looked up and connected to: there
are no two readings to play off against each other. Names prove nothing; the network addresses
behind them are judged, when the connection is made (`fetch.CheckedNetwork`).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpx

MAX_URL_CHARS = 2_000
_HOST_NAME = re.compile(
    r"(?=.{4,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
"""At least two labels, the last one beginning with a letter: `localhost`, `2130706433`, `0x7f.1`
and `127.1` are none.
"""
_PRIVATE_NAMES = (
    ".localhost",
    ".local",
    ".internal",
    ".intranet",
    ".lan",
    ".corp",
    ".home",
    ".home.arpa",
    ".private",
    ".onion",
    ".test",
)

_FORBIDDEN_V4 = [
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; a cloud keeps its metadata there
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's own services at a public address
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
_GLOBAL_V6 = IPv6Network("2000::/3")
"""All that is assigned for global use; mapped, compatible, NAT64, unique-local, link-local and
multicast addresses lie outside.
"""
_FORBIDDEN_V6 = [
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments, Teredo among them, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
]


class FetchRefusedError(Exception):
    """This address may not be fetched, or what it sends may not be used. The text says why."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address belongs to the public Internet and is not a wrapped form of another
    one.
    """
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _FORBIDDEN_V4)
    return (
        address.scope_id is None
        and address in _GLOBAL_V6
        and not any(address in block for block in _FORBIDDEN_V6)
    )


def as_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address in its canonical spelling; None for anything else."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What an address must look like before anything is looked up.

    Attributes:
        ports: the only ones that may be named.
    """

    ports: frozenset[int] = frozenset({80, 443})

    def read(self, text: str) -> httpx.URL:
        """Parse an address and judge its spelling.

        Raises:
            FetchRefusedError: it is none that may be fetched.
        """
        if len(text) > MAX_URL_CHARS or not text.isprintable() or " " in text or "\\" in text:
            raise FetchRefusedError("not a well-formed address")
        try:
            url = httpx.URL(text)
            host = url.raw_host.decode("ascii").lower()
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise FetchRefusedError("not a well-formed address") from None
        if url.scheme not in {"http", "https"}:
            raise FetchRefusedError(
                f"scheme {url.scheme or 'missing'!r}: only http and https are fetched"
            )
        if url.userinfo:
            raise FetchRefusedError("the address carries a user name")
        port = url.port if url.port is not None else 443 if url.scheme == "https" else 80
        if port not in self.ports:
            raise FetchRefusedError(
                f"port {port}: only {', '.join(map(str, sorted(self.ports)))} are fetched"
            )
        _judge_host(host)
        return url.copy_with(fragment=None)


def _judge_host(host: str) -> None:
    address = as_address(host)
    if address is not None:
        if not is_public(address):
            raise FetchRefusedError("the address is not on the public Internet")
        return
    # One trailing dot is the root; what stands before it is judged, and the dot is kept for the
    # look-up.
    name = host.removesuffix(".")
    if not _HOST_NAME.fullmatch(name) or name.endswith(_PRIVATE_NAMES):
        raise FetchRefusedError("the host is no public name")


PUBLIC_WEB = UrlPolicy()
