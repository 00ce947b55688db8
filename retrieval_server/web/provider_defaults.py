"""Facts about the providers that can be chosen. Nothing heavy is imported, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class ProviderDefaults:
    """What is known about a provider before it is asked anything.

    Attributes:
        base_url: None where the user runs it or a library knows the address.
        url_env: environment variable that holds the address of the user's own instance.
        key_env: environment variable of the key; None where none is needed.
        where: what to do to get a key or an instance.
        usd_per_credit: list price of the smallest plan; 0 where it is free.
        rate_per_s, concurrency: how fast the smallest plan may be asked.
        ttl_s: how long its answers stay fresh.
    """

    base_url: str | None
    key_env: str | None
    where: str
    usd_per_credit: float
    rate_per_s: float
    concurrency: int
    url_env: str | None = None
    ttl_s: float = 30 * _DAY_S


PROVIDERS: dict[str, ProviderDefaults] = {
    "serper": ProviderDefaults(
        "https://google.serper.dev",
        "SERPER_API_KEY",
        "get a key at https://serper.dev/api-key",
        0.001,
        40.0,
        16,
    ),
    "tavily": ProviderDefaults(
        "https://api.tavily.com",
        "TAVILY_API_KEY",
        "get a key at https://app.tavily.com",
        0.008,
        1.6,
        8,
    ),
    "searxng": ProviderDefaults(
        None,
        None,
        "run an instance (https://docs.searxng.org/admin/installation.html) with 'json' among"
        " search.formats of its settings.yml",
        0.0,
        5.0,
        4,
        url_env="SEARXNG_URL",
    ),
    "duckduckgo": ProviderDefaults(None, None, "no key is needed", 0.0, 1.0, 1),
}
"""By the name that --provider takes. Prices and rates are defaults to compare with your own plan;
options override them.
"""
