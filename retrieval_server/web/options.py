"""The web part of the search server's command line. Nothing heavy is imported with this module."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from retrieval_server.web.provider_defaults import PROVIDERS, ProviderDefaults
from seg_common.arguments import at_least, chosen, number
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
                "--provider-url: duckduckgo is asked through a library that knows its address;"
                " leave this option out"
            )
        if not is_http_address(stated):
            raise UsageError(
                f"--provider-url {stated}: expected http(s)://HOST[:PORT][/PATH] without a user"
                " name"
            )
        return stated

    def key(self) -> str | None:
        """Read the key.

        Raises:
            UsageError: it is missing, or would be sent to another host or unencrypted.
        """
        facts, url = self.facts, self.url
        if facts.key_env is None:
            return None
        if self.provider_url and not self.send_key and _host(url) != _host(facts.base_url or ""):
            raise UsageError(
                f"--provider-url {url}: this is not {self.provider}'s own address, and"
                f" {facts.key_env} would be sent there; add --send-key if that is meant"
            )
        if url.startswith("http://") and _host(url) not in _LOOPBACK:
            raise UsageError(
                f"--provider-url {url}: {facts.key_env} would travel unencrypted; use https"
            )
        key = os.environ.get(facts.key_env, "").strip()
        if not key:
            raise UsageError(
                f"--provider {self.provider}: {facts.key_env} is not set; {facts.where}, then"
                f" export {facts.key_env}=…"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"--provider {self.provider}: {facts.key_env} holds characters that no key has;"
                " copy it again"
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
    """Declare the options; most have the name of the field of `WebSettings` that they fill."""
    default = WebSettings(provider="")
    web = parser.add_argument_group("the web (docs/web_search.md)").add_argument
    keys = [
        f"{name}: {facts.key_env or facts.url_env}"
        for name, facts in PROVIDERS.items()
        if facts.key_env or facts.url_env
    ]
    web(
        "--provider",
        choices=PROVIDERS,
        help=f"search the web for what has no local corpus (environment: {', '.join(keys)})",
    )
    web("--provider-url", metavar="URL", help="ask there in place of the provider's own address")
    web("--send-key", action="store_true", help="send the key to --provider-url")
    web(
        "--provider-rate",
        dest="rate_per_s",
        type=number(above_zero=True),
        metavar="N",
        help="calls a second, of all clients together (default: the provider's smallest plan)",
    )
    web(
        "--provider-concurrency",
        dest="concurrency",
        type=at_least(1),
        metavar="N",
        help="calls at once",
    )
    _add_budget(web, default)
    _add_cache(web)
    web(
        "--browse",
        action="store_true",
        help="read the pages of results for requests that ask for it",
    )
    web(
        "--browse-pages",
        dest="max_pages",
        type=at_least(1),
        default=default.max_pages,
        metavar="N",
        help="pages read for a request at most",
    )
    web(
        "--page-chars",
        type=at_least(1),
        default=default.page_chars,
        metavar="N",
        help="what is kept of a page",
    )


def _add_cache(web: Callable[..., object]) -> None:
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
        type=number(above_zero=True),
        metavar="DAYS",
        help="ask again for older answers (default: 30)",
    )


def _add_budget(web: Callable[..., object], default: WebSettings) -> None:
    web("--usd-per-call", type=number(), metavar="USD", help="what a call costs in your plan")
    web(
        "--max-calls-per-day",
        dest="calls_per_day",
        type=at_least(0),
        metavar="N",
        help="budget of a day (UTC); once it is used up, searches find nothing and say why",
    )
    web(
        "--max-usd-per-day",
        dest="usd_per_day",
        type=number(),
        metavar="USD",
        help="the same in money",
    )
    web(
        "--max-calls-per-run",
        dest="calls_per_run",
        type=at_least(0),
        metavar="N",
        help="budget of a run",
    )
    web(
        "--max-usd-per-run",
        dest="usd_per_run",
        type=number(),
        metavar="USD",
        help="the same in money",
    )
    web(
        "--run-name",
        dest="run",
        default=default.run,
        metavar="NAME",
        help="what a run is: all servers with this name",
    )
    web(
        "--spend-file",
        type=Path,
        metavar="F.sqlite",
        help="account of calls (default: spend.sqlite in the user's folder for state)",
    )


def settings_from(options: argparse.Namespace) -> WebSettings | None:
    """Build settings from parsed options; None without --provider.

    Raises:
        UsageError: options contradict each other.
    """
    if options.provider is None:
        for name in ("provider_url", "cache_mode", "cache_file", "browse"):
            if getattr(options, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} is about web search; name a --provider "
                    f"({', '.join(PROVIDERS)})"
                )
        return None
    mode = options.cache_mode or ("record" if options.cache_file else "off")
    if mode != "off" and options.cache_file is None:
        raise UsageError(f"--cache-mode {mode}: name the file with --cache-file F.sqlite")
    days = options.cache_ttl_days
    named = chosen(WebSettings, options)
    named |= {"cache_mode": mode, "ttl_s": None if days is None else days * _DAY_S}
    return WebSettings(**named)
