"""The web part of the search server's command line. Nothing heavy is imported with this module."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from retrieval_server.web.provider_defaults import PROVIDERS, ProviderDefaults
from seg_common.errors import UsageError

_DAY_S = 86_400.0
CACHE_MODES = ("off", "record", "replay")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Which provider is asked, within what limits. Keys are read from the environment when the
    provider is opened, and stand nowhere else.

    Attributes:
        provider_url: in place of the provider's own address.
        send_key: whether the key may go to an address that is not the provider's own.
        usd_per_call, rate_per_s, concurrency, ttl_s: None takes what the catalogue says.
        run: name under which the budget of a run is counted.
        browse: whether pages are read for requests that ask for it.
    """

    provider: str
    provider_url: str | None = None
    send_key: bool = False
    usd_per_call: float | None = None
    rate_per_s: float | None = None
    concurrency: int | None = None
    calls_per_day: int | None = None
    usd_per_day: float | None = None
    calls_per_run: int | None = None
    usd_per_run: float | None = None
    run: str = "default"
    spend_file: Path | None = None
    cache_mode: str = "off"
    cache_file: Path | None = None
    ttl_s: float | None = None
    browse: bool = False
    max_pages: int = 3
    page_chars: int = 1_000

    @property
    def facts(self) -> ProviderDefaults:
        """What the catalogue says of the provider."""
        return PROVIDERS[self.provider]

    @property
    def url(self) -> str:
        """Address of the provider; empty where a library knows it.

        Raises:
            UsageError: there is none, or it is none.
        """
        facts = self.facts
        stated = self.provider_url or (os.environ.get(facts.url_env, "") if facts.url_env else "")
        if not stated:
            if facts.url_env and not facts.base_url:
                advice = f"{facts.where}, then export {facts.url_env}=http://HOST:PORT"
                raise UsageError(
                    f"--provider {self.provider}: {facts.url_env} is not set; {advice}"
                )
            return facts.base_url or ""
        if self.provider == "duckduckgo":
            raise UsageError(
                "--provider-url: duckduckgo is asked through a library that knows its address; leave this option out"
            )
        if not is_http_address(stated):
            raise UsageError(
                f"--provider-url {stated}: expected http(s)://HOST[:PORT][/PATH] without a user name"
            )
        return stated

    def key(self) -> str | None:
        """Read the key.

        Raises:
            UsageError: it is missing, or would go to a stranger or over an open line.
        """
        facts, url = self.facts, self.url
        if facts.key_env is None:
            return None
        if self.provider_url and not self.send_key and _host(url) != _host(facts.base_url or ""):
            raise UsageError(
                f"--provider-url {url}: this is not {self.provider}'s own address, and {facts.key_env} would be sent there; "
                "add --send-key if that is meant"
            )
        if url.startswith("http://") and _host(url) not in _LOOPBACK:
            raise UsageError(
                f"--provider-url {url}: {facts.key_env} would travel unencrypted; use https"
            )
        key = os.environ.get(facts.key_env, "").strip()
        if not key:
            raise UsageError(
                f"--provider {self.provider}: {facts.key_env} is not set; {facts.where}, then export {facts.key_env}=…"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"--provider {self.provider}: {facts.key_env} holds characters that no key has; copy it again"
            )
        return key


def is_http_address(text: str) -> bool:
    """Tell whether a text is http(s)://host[:port][/path]."""
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = (
        text.isascii()
        and text.isprintable()
        and " " not in text
        and not parts.query
        and not parts.fragment
    )
    return (
        plain
        and port_is_fine
        and parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and parts.username is None
    )


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    web = parser.add_argument_group("the web (docs/web_search.md)").add_argument
    keys = ", ".join(
        f"{name}: {facts.key_env or facts.url_env}"
        for name, facts in PROVIDERS.items()
        if facts.key_env or facts.url_env
    )
    web(
        "--provider",
        choices=PROVIDERS,
        help=f"search the web for what has no local corpus (environment: {keys})",
    )
    web("--provider-url", metavar="URL", help="ask there in place of the provider's own address")
    web("--send-key", action="store_true", help="send the key to --provider-url")
    web(
        "--provider-rate",
        type=float,
        metavar="N",
        help="calls a second, of all clients together (default: the provider's smallest plan)",
    )
    web("--provider-concurrency", type=int, metavar="N", help="calls at once")
    web("--usd-per-call", type=float, metavar="USD", help="what a call costs in your plan")
    web(
        "--max-calls-per-day",
        type=int,
        metavar="N",
        help="budget of a day (UTC); once it is used up, searches find nothing and say why",
    )
    web("--max-usd-per-day", type=float, metavar="USD", help="the same in money")
    web("--max-calls-per-run", type=int, metavar="N", help="budget of a run")
    web("--max-usd-per-run", type=float, metavar="USD", help="the same in money")
    web(
        "--run-name",
        default="default",
        metavar="NAME",
        help="what a run is: all servers with this name (default: %(default)s)",
    )
    web(
        "--spend-file",
        type=Path,
        metavar="F.sqlite",
        help="account of calls (default: ~/.local/state/seg_research/spend.sqlite)",
    )
    web(
        "--cache-mode",
        choices=CACHE_MODES,
        help="keep web answers, or replay them alone (default: record if there is a --cache-file)",
    )
    web(
        "--cache-file",
        type=Path,
        metavar="F.sqlite",
        help="where web answers are kept; see seg-research cache",
    )
    web(
        "--cache-ttl-days",
        type=float,
        metavar="DAYS",
        help="ask again for older answers (default: 30)",
    )
    web(
        "--browse",
        action="store_true",
        help="read the pages of results for requests that ask for it",
    )
    web(
        "--browse-pages",
        type=int,
        default=3,
        metavar="N",
        help="pages read for a request at most (default: %(default)s)",
    )
    web(
        "--page-chars",
        type=int,
        default=1_000,
        metavar="N",
        help="what is kept of a page (default: %(default)s)",
    )


def settings_from(options: argparse.Namespace) -> WebSettings | None:
    """Build settings from parsed options; None without --provider.

    Raises:
        UsageError: a number is out of range, or options contradict each other.
    """
    given = [
        name
        for name in ("provider_url", "cache_mode", "cache_file", "browse")
        if getattr(options, name)
    ]
    if options.provider is None:
        if given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} is about web search; name a --provider ({', '.join(PROVIDERS)})"
            )
        return None
    for name in (*_MAY_BE_ZERO, *_ABOVE_ZERO):
        _check_number(name, getattr(options, name))
    mode = options.cache_mode or ("record" if options.cache_file else "off")
    if mode != "off" and options.cache_file is None:
        raise UsageError(f"--cache-mode {mode}: name the file with --cache-file F.sqlite")
    return WebSettings(
        provider=options.provider,
        provider_url=options.provider_url,
        send_key=options.send_key,
        usd_per_call=options.usd_per_call,
        rate_per_s=options.provider_rate,
        concurrency=options.provider_concurrency,
        calls_per_day=options.max_calls_per_day,
        usd_per_day=options.max_usd_per_day,
        calls_per_run=options.max_calls_per_run,
        usd_per_run=options.max_usd_per_run,
        run=options.run_name,
        spend_file=options.spend_file,
        cache_mode=mode,
        cache_file=options.cache_file,
        ttl_s=None if options.cache_ttl_days is None else options.cache_ttl_days * _DAY_S,
        browse=options.browse,
        max_pages=options.browse_pages,
        page_chars=options.page_chars,
    )


_MAY_BE_ZERO = (
    "usd_per_call",
    "max_calls_per_day",
    "max_usd_per_day",
    "max_calls_per_run",
    "max_usd_per_run",
)
_ABOVE_ZERO = (
    "provider_rate",
    "provider_concurrency",
    "cache_ttl_days",
    "browse_pages",
    "page_chars",
)


def _check_number(name: str, value: float | None) -> None:
    fits = value is None or (0 <= value < 1e9 if name in _MAY_BE_ZERO else 0 < value < 1e9)
    if not fits:
        expected = "a number of at least 0" if name in _MAY_BE_ZERO else "a number above 0"
        raise UsageError(f"--{name.replace('_', '-')} {value}: expected {expected}")
