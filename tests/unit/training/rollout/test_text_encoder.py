"""One encoder a host: what waits together is embedded together, no event loop is blocked, and
failures have names.
"""

import asyncio
import threading

import numpy as np
import pytest

pytest.importorskip("ray", reason="comes with the train extra")

from ray.exceptions import RayActorError, RayTaskError

from seg_common.errors import InfraError, UsageError
from seg_research.rewards.similarity import LazyEncoder
from seg_research.training.rollout import text_encoder
from seg_research.training.rollout.text_encoder import EncoderService, MachineEncoder


class Slow:
    """Embeds a text as its length, when it is let; remembers its calls."""

    def __init__(self):
        self.calls: list[list[str]] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def encode(self, texts):
        assert self.go.wait(20)
        if self.error:
            raise self.error
        self.calls.append(list(texts))
        return np.array([[len(text), 1] for text in texts], np.float32)


@pytest.fixture
def slow() -> Slow:
    return Slow()


async def test_what_arrives_while_a_batch_is_computed_is_the_next_batch(slow):
    service = EncoderService(slow)
    tasks = [
        asyncio.create_task(service.encode(texts))
        for texts in (["a"], ["bb", "ccc"], ["ccc", "a"], ["dddd"])
    ]
    while not all(service._waiting == waiting for waiting in (["bb", "ccc", "ccc", "a", "dddd"],)):
        await asyncio.sleep(0)  # the event loop is free while the first batch waits in its thread
    slow.go.set()
    answers = [answer[:, 0].tolist() for answer in await asyncio.gather(*tasks)]
    assert answers == [[1], [2, 3], [3, 1], [4]]
    assert slow.calls == [["a"], ["bb", "ccc", "dddd"]]


async def test_a_text_is_embedded_once_a_host(slow):
    slow.go.set()
    service = EncoderService(slow)
    await service.encode(["a", "bb"])
    await service.encode(["bb", "a"])
    assert slow.calls == [["a", "bb"]]


async def test_a_failure_reaches_everybody_who_waits_for_it_and_the_next_request_is_answered(slow):
    slow.error = UsageError("no such model")
    service = EncoderService(slow)
    tasks = [asyncio.create_task(service.encode([text])) for text in "abc"]
    await asyncio.sleep(0)
    slow.go.set()
    assert {str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {
        "no such model"
    }
    slow.error = None
    assert (await service.encode(["a"])).tolist() == [[1, 1]]


class Actor:
    """Stands in for the handle of a Ray actor."""

    def __init__(self, answer):
        self.encode = self
        self.answer = answer

    async def remote(self, texts):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_actor_is_made_when_first_needed_and_again_after_its_death(monkeypatch):
    made = []
    answers = [RayActorError(), np.ones((1, 2), np.float32)]
    monkeypatch.setattr(
        text_encoder,
        "_actor_of_node",
        lambda encoder: made.append(encoder) or Actor(answers[len(made) - 1]),
    )
    encoder = MachineEncoder(LazyEncoder("model", 3))
    assert made == []
    with pytest.raises(InfraError, match="encoder of this machine died"):
        await encoder.encode(["a"])
    for _ in range(2):
        assert (await encoder.encode(["a"])).tolist() == [[1, 1]]
    assert made == [LazyEncoder("model", 3)] * 2


async def test_what_was_wrong_in_the_actor_is_told_in_its_own_words(monkeypatch):
    wrong = RayTaskError(
        "encode", "Traceback\n  a page of it", UsageError("no such model"), pid=1, ip="127.0.0.1"
    ).as_instanceof_cause()
    monkeypatch.setattr(text_encoder, "_actor_of_node", lambda encoder: Actor(wrong))
    with pytest.raises(UsageError, match=r"^no such model$"):
        await MachineEncoder(LazyEncoder("model", 1)).encode(["a"])
