"""Addresses that must not be fetched: however they are spelled, wherever their names lead, whatever
they redirect to.
"""

import asyncio
import ipaddress
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_server.web.fetch import PAGE_TYPES, DownloadLimits, Fetcher, FetchFailedError
from retrieval_server.web.url_policy import PUBLIC_WEB, FetchRefusedError, UrlPolicy, is_public

from .conftest import reply

PUBLIC = "93.184.215.14"
QUICK = DownloadLimits(timeout_s=5.0, host_pause_s=0.0)
TLS = ssl.create_default_context()  # Made once: it takes 20 ms.

SPELLINGS = [
    "http://127.0.0.1/",
    "http://127.0.0.1:80/",
    "https://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7f.1/",
    "http://127.0.0.1./",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/metadata",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://203.0.113.7/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:169.254.169.254]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:7f00:1::]/",
    "http://[2001:db8::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[2606:4700::1%25lo]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://foo.localhost/",
    "http://printer.local/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://router.lan/",
    "http://nas.home.arpa/",
    "http://intranet/",
    "http://①②⑦.⓪.⓪.①/",
    "http://１２７.０.０.１/",
    "http://127。0。0。1/",
    "http://١٢٧.0.0.1/",
    "http://ⓛocalhost/",
    "http://user@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1/",
    "http://user:pass@example.com/",
    "http://example.com%2f@127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\@example.com/",
    "http://127.0.0.1%00.example.com/",
    "http://127.0.0.1%2f.example.com/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://example.com:-80/",
    "http:///127.0.0.1/",
    "http:127.0.0.1/",
    "//127.0.0.1/",
    "/etc/passwd",
    "",
    "http://",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "ftp://example.com/",
    "dict://example.com:11211/stats",
    "ldap://example.com/",
    "data:text/html,hello",
    "javascript:alert(1)",
    "jar:http://example.com/!/",
    "ws://example.com/",
    "http://exa mple.com/",
    "http://example.com/\r\nHost: 127.0.0.1",
    "http://example.com/\x00",
    "http://exam\u200bple.com\u202e/",
    "http://example.com/" + "a" * 2000,
    "http://-example.com/",
    "http://example..com/",
    "http://" + "a" * 64 + ".com/",
    "http://example.123/",
]


async def no_look_up(host, port):
    raise AssertionError(f"{host} was looked up")


def looking_up(*answers):
    """Each look-up gives the next answer; a rebinding server gives another one each time."""
    left = list(answers)

    async def resolver(host, port):
        return left.pop(0) if len(left) > 1 else left[0]

    return resolver


async def fetch(url, **options):
    fetcher = Fetcher(limits=QUICK, tls=TLS, **options)
    try:
        return await fetcher.fetch(url, accept=PAGE_TYPES)
    finally:
        await fetcher.close()


@pytest.mark.parametrize("url", SPELLINGS)
async def test_no_spelling_leads_inside(url, monkeypatch):
    async def no_connection(*args, **options):
        raise AssertionError("a connection was made")

    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", no_connection)
    with pytest.raises(FetchRefusedError):
        await fetch(url, resolver=no_look_up)


INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.31.255.255",
    "192.168.0.1",
    "100.127.255.255",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.251",
    "240.0.0.1",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:93.184.215.14",
    "64:ff9b::5db8:d70e",
    "2002:5db8:d70e::1",
    "2001:0:5db8:d70e::",
    "fe80::1",
    "fe80::1%eth0",
    "fd12::1",
    "ff0e::1",
    "not an address",
]


@pytest.mark.parametrize("address", INSIDE)
async def test_no_name_leads_inside(address, monkeypatch):
    async def no_connection(*args, **options):
        raise AssertionError("a connection was made")

    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", no_connection)
    with pytest.raises(FetchRefusedError, match="not on the public Internet"):
        await fetch("http://innocent.example.com/", resolver=looking_up([address]))
    with pytest.raises(FetchRefusedError, match="not on the public Internet"):
        await fetch("http://innocent.example.com/", resolver=looking_up([PUBLIC, address]))


async def test_the_connection_goes_to_the_address_that_was_judged(monkeypatch):
    # DNS rebinding: the first look-up is public, a second one would lead inside.
    connected = []

    async def connect(self, host, port, *args, **options):
        connected.append((host, port))
        raise OSError("far away")

    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect)
    with pytest.raises(FetchFailedError):
        await fetch("http://rebinding.example.com/", resolver=looking_up([PUBLIC], ["127.0.0.1"]))
    assert connected == [(PUBLIC, 80)]


async def test_a_name_that_changes_its_address_is_judged_at_every_connection(local_server):
    local_server.replies(
        reply(302, location="http://rebinding.example.com/again", connection="close")
    )
    permitted = ipaddress.ip_address("127.0.0.1")
    with pytest.raises(FetchRefusedError, match="not on the public Internet"):
        await fetch(
            f"http://rebinding.example.com:{local_server.port}/",
            rules=UrlPolicy(ports=frozenset({80, local_server.port})),
            resolver=looking_up(["127.0.0.1"], ["127.0.0.2"]),
            permits=lambda address: address == permitted,
        )
    assert len(local_server.asked) == 1


REDIRECTS = [
    "http://127.0.0.1/",
    "http://[::1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2130706433/",
    "//127.0.0.1/",
    "//localhost/admin",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "http://user@site.example.com/",
    "http://site.example.com:22/",
    "http://inside.example.com/",
    "http://[::ffff:127.0.0.1]/",
    "http://site.example.com\\@127.0.0.1/",
    "http://[bad",
    "http://①②⑦.⓪.⓪.①/".encode().decode("latin-1"),
]


@pytest.mark.parametrize("location", REDIRECTS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_leads_inside(location, status, local_server):
    local_server.replies(reply(status, location=location))
    test_host = ipaddress.ip_address("127.0.0.1")

    async def resolver(host, port):
        return ["10.0.0.1"] if host == "inside.example.com" else ["127.0.0.1"]

    with pytest.raises(FetchRefusedError):
        # The loopback address is permitted for the test's own host alone, and only by way of its
        # name.
        await fetch(
            f"http://site.example.com:{local_server.port}/",
            rules=UrlPolicy(ports=frozenset({80, local_server.port})),
            resolver=resolver,
            permits=lambda address: address == test_host,
        )
    assert len(local_server.asked) == 1


async def test_local_sockets_are_refused():
    from retrieval_server.web.fetch import CheckedNetwork

    with pytest.raises(FetchRefusedError):
        await CheckedNetwork(no_look_up, is_public).connect_unix_socket("/run/docker.sock")


@given(st.ip_addresses(v=4))
def test_a_public_address_is_one_that_python_calls_global(address):
    # Ours is stricter, never more lenient.
    assert not is_public(address) or (
        address.is_global and not address.is_multicast and not address.is_reserved
    )


@given(st.ip_addresses(v=6))
def test_the_same_for_the_longer_ones(address):
    assert not is_public(address) or (
        address.is_global and not address.is_multicast and not address.is_reserved
    )
    assert not is_public(address) or (
        address.ipv4_mapped is None and address.sixtofour is None and address.teredo is None
    )


@given(st.ip_addresses(v=4))
def test_a_wrapped_address_is_never_public(address):
    number = int(address)
    for wrapped in (
        ipaddress.IPv6Address(number),
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
    ):
        assert not is_public(wrapped)


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1"]
)
def test_the_public_internet_is_public(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:443/a?b=c",
        "http://example.com./",
        "HTTP://EXAMPLE.COM/",
        "https://xn--mnchen-3ya.de/",
        "https://münchen.de/",
        "https://en.wikipedia.org/wiki/Barbie_(film)",
        "http://1.1.1.1/",
        "https://[2606:4700:4700::1111]/",
        "https://a_b.example.co.uk/%20",
    ],
)
def test_ordinary_addresses_are_accepted(url):
    assert PUBLIC_WEB.read(url).host


@given(
    st.text(max_size=60)
    | st.text(max_size=40).map(lambda text: f"http://{text}/")
    | st.text(max_size=30).map("http://a.com{}".format)
)
def test_any_text_is_an_address_or_refused(text):
    try:
        url = PUBLIC_WEB.read(text)
    except FetchRefusedError:
        return
    assert url.scheme in {"http", "https"}
    assert url.raw_host.decode("ascii")
    assert not url.userinfo


async def test_a_name_without_addresses_is_a_failure_and_no_refusal():
    async def unknown(host, port):
        raise OSError("Name or service not known")

    with pytest.raises(FetchFailedError, match="look"):
        await fetch("http://nowhere.example.com/", resolver=unknown)
    with pytest.raises(FetchRefusedError):
        await fetch("http://nowhere.example.com/", resolver=looking_up([]))


async def test_the_fetcher_of_a_server_permits_nothing_on_this_machine(local_server):
    local_server.replies(reply(200, "secret", content_type="text/plain"))
    for url in (local_server.url, f"http://localhost:{local_server.port}/"):
        with pytest.raises(FetchRefusedError):
            await fetch(url)
        with pytest.raises(FetchRefusedError):
            await fetch(url, rules=UrlPolicy(ports=frozenset({local_server.port})))
    await asyncio.sleep(0)
    assert local_server.asked == []
