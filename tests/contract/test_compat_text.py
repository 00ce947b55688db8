"""The text that compat rewards judge live is what the original would decode from the tokens of the
same episode.
"""

import pytest

from seg_research.recipes.registry import build_recipe
from seg_research.testing.fakes import start_episode

pytest.importorskip("transformers", reason="models need the train extra")

from seg_research.episode.run import run_episode
from seg_research.episode.transcript import Outcome
from seg_research.recipes.seg_research.compat import decoded_response
from seg_research.recipes.seg_research.settings import SegResearchSettings
from seg_research.testing.fakes import FakeSearcher
from seg_research.testing.samples import draw_sample
from seg_research.testing.teacher import TeacherConversation

TURNS = [
    '<thinking> who </thinking>\n<search> {"name": "text_search", "query": "emblem"} </search>',
    '<search> {"name": "image_search", "query": "town"} </search>',
    "no action",
    "<keyframe> 3 </keyframe>",
    (
        '<thinking> it is in plain sight </thinking>\n<answer> {"bbox_2d": [100, 120, 400, 520],'
        ' "point_2d": [240, 300]} </answer>'
    ),
]


@pytest.mark.parametrize("num_turns", [1, 3, 5])
async def test_decoded_tokens_and_judged_text_are_one(num_turns, tiny_processor, tmp_path):
    settings = SegResearchSettings(brief_prompt=True)
    recipe, turns = build_recipe(settings), TURNS[:num_turns]
    conversation = TeacherConversation(tiny_processor, [*turns, *["silence"] * 9])
    sample = draw_sample(tmp_path, frame_ids=(3, 8))
    transcript = await run_episode(
        start_episode(recipe, sample),
        conversation,
        recipe.connect(FakeSearcher()),
    )
    assert transcript.observations[0].outcome is Outcome.OK
    decoded = tiny_processor.tokenizer.decode(
        conversation.tokens().response_ids, skip_special_tokens=True
    )
    assert decoded_response(transcript) == decoded
