"""Requests that the server's own description allows, and ones that it forbids: none is a bug of
ours, and replies are as described.
"""

import pytest

pytest.importorskip("bm25s")
pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from retrieval_server.server import running_server

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
QUICK = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
THOROUGH = settings(QUICK, max_examples=2_000, derandomize=False)


@pytest.fixture(scope="module")
def requests(corpus):
    """Return a strategy of requests: for each operation ones that fit its description and ones that
    do not.
    """
    with running_server(*corpus, options=["--retriever", "bm25"]) as url:
        operations = [
            found.ok()
            for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()
        ]
        assert {operation.path for operation in operations} >= {
            "/search",
            "/search/batch",
            "/retrieve",
            "/healthz",
            "/readyz",
            "/metrics",
        }
        yield st.one_of(
            *(
                operation.as_strategy(generation_mode=mode)
                for operation in operations
                for mode in GenerationMode
            )
        )


def check(request):
    reply = request.call()
    assert reply.status_code < 500 or reply.status_code == 504, (
        "504: the deadline in the request was too short"
    )
    request.validate_response(reply, checks=CHECKS)


@QUICK
@given(data=st.data())
def test_no_request_breaks_the_server(requests, data):
    check(data.draw(requests))


@pytest.mark.slow
@THOROUGH
@given(data=st.data())
def test_no_request_of_many_breaks_the_server(requests, data):
    check(data.draw(requests))
