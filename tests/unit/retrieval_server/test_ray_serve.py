import socket
import time

import httpx
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("ray.serve", reason="Ray Serve comes with ray[serve]")

from retrieval_server import ray_serve
from seg_common.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"texts": "a"},
            "unrecognized arguments: --texts=a; options are those of `seg-research serve`",
        ),
        ({"text": "a", "top_k": "0"}, "--top-k 0: expected 1..100"),
        ({"text": "a", "replicas": "0"}, "--replicas 0: expected at least 1"),
        ({"text": "a", "retriever": "magic"}, "invalid choice: 'magic'"),
    ],
)
def test_bad_arguments_are_told(arguments, said):
    with pytest.raises(UsageError) as raised:
        ray_serve.app(arguments)
    assert said in str(raised.value)


def test_switches_need_no_value():
    assert ray_serve._as_options({"text_index": "a b", "browse": "true"}) == [
        "--text-index=a b",
        "--browse",
    ]


@pytest.mark.slow
def test_two_replicas_share_the_work_and_say_the_same(corpus):
    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with socket.create_server(("127.0.0.1", 0)) as free:  # Ray Serve cannot choose one itself
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        arguments = {
            "text": str(corpus[0]),
            "images": str(corpus[1]),
            "retriever": "bm25",
            "replicas": "2",
            "num_cpus": "0.1",
        }
        serve.run(ray_serve.app(arguments), name="search")
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
        ) as client:
            started: set[str] = set()
            give_up = time.monotonic() + 300
            while len(started) < 2 and time.monotonic() < give_up:
                shown = client.get("/metrics").text.splitlines()
                started |= {line for line in shown if line.startswith("process_start_time_seconds")}
            assert len(started) == 2, "two processes answered"
            replies = [
                client.post("/search", json={"query": "blue kite", "top_k": 2}).json()["hits"]
                for _ in range(20)
            ]
            assert [hit["id"] for hit in replies[0]] == ["0", "3"]
            assert all(hits == replies[0] for hits in replies)
            assert client.post("/search", json={"query": " "}).status_code == 422
            image = client.post("/search", json={"query": "emblem", "kind": "image"}).json()[
                "hits"
            ][0]["image"]
            assert image.startswith("data:image/jpeg;base64,")
            assert (
                client.post("/retrieve", json={"queries": ["painter"], "topk": 1}).json()["result"][
                    0
                ][0]["id"]
                == "b"
            )
    finally:
        serve.shutdown()
        ray.shutdown()
