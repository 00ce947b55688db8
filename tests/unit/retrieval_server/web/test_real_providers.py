"""The providers themselves, where the environment holds a key; a few searches a run."""

import os

import pytest

from retrieval_server.schemas import CollectionKind
from retrieval_server.web.searxng import Searxng
from retrieval_server.web.serper import Serper
from retrieval_server.web.tavily import Tavily

TEXT, IMAGE = CollectionKind.TEXT, CollectionKind.IMAGE
REAL = {
    "serper": (Serper, "https://google.serper.dev", "SERPER_API_KEY"),
    "tavily": (Tavily, "https://api.tavily.com", "TAVILY_API_KEY"),
}


@pytest.mark.parametrize("name", REAL)
async def test_the_real_provider(name):
    make, url, variable = REAL[name]
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set: the real {name} is not asked")
    provider = make(url, os.environ[variable])
    try:
        await provider.check()
        hits = await provider.ask("Barbie film director", TEXT, 3)
        images = await provider.ask("flag of France", IMAGE, 3)
    finally:
        await provider.close()
    assert hits
    assert all(hit.title and hit.url for hit in hits)
    assert any(hit.image_urls for hit in images)


async def test_a_real_searxng():
    if not os.environ.get("SEARXNG_URL"):
        pytest.skip("SEARXNG_URL is not set: no instance is asked")
    assert await Searxng(os.environ["SEARXNG_URL"]).ask("Barbie film director", TEXT, 3)
