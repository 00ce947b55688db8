"""Training examples that are whole episodes, as an expert plays them."""

from __future__ import annotations

from collections.abc import Sequence

from seg_research.mini.expert_noise import NO_MISTAKES, MistakeRates
from seg_research.mini.knowledge import Holder, Passage, Person
from seg_research.mini.pretraining_data.clips import Clip
from seg_research.mini.pretraining_data.grounding import frame_lines, keyframe_message
from seg_research.mini.pretraining_data.referring_expressions import (
    ReferringExpression,
    direct_expressions,
    relational_expressions,
)
from seg_research.mini.pretraining_data.training_example import (
    ASSISTANT,
    END,
    SplitRandom,
    TrainingExample,
    any_holder,
    any_name,
    bystander,
    emblem_question,
    information,
    noted,
    passage_of,
    region,
    request,
    search,
    shuffled,
    system,
    told,
    user,
)
from seg_research.mini.questions import Ability

_ABILITIES = (
    (Ability.ONE_HOP,) * 2
    + (Ability.MULTI_HOP,) * 2
    + (Ability.RELATIONAL,) * 2
    + (Ability.IN_VIDEO,)
)
_FORM, _SECOND_FIRST, _OF_THE_CLIP = 0.5, 0.3, 0.7


def full_episode(
    rng: SplitRandom, clips: Sequence[Clip], mistakes: MistakeRates = NO_MISTAKES
) -> TrainingExample:
    """Play one episode of any ability; wrong searches, whose results take a real engine, are left
    to the noisy expert.
    """
    clip, ability, example = rng.choice(clips), rng.choice(_ABILITIES), TrainingExample()
    through = relational_expressions(clip)
    if ability is Ability.RELATIONAL and not through:
        ability = Ability.ONE_HOP
    if ability is Ability.IN_VIDEO:
        _answer_from_the_video(rng, example, clip, mistakes)
        return example
    if ability is Ability.RELATIONAL:
        expression = rng.choice(through)
    else:
        figure = rng.choice(clip.ever_seen())
        expression = ReferringExpression("", "", figure, figure)
    holder = any_holder(rng, clip.looks[expression.anchor])
    person = Person(any_name(rng), holder) if ability is Ability.MULTI_HOP else None
    if person:
        words = f"the {holder.kind.role} of {person.bond}"
    else:
        words = (
            expression.words.format(anchor=holder.emblem)
            if expression.words
            else emblem_question(rng, holder)
        )
    example.add_context(
        system() + "<|im_start|>user\n" + frame_lines(example, clip) + _asking(words)
    )
    known = (
        []
        if _happens(rng, mistakes.no_search)
        else _find_out(rng, example, clip, holder, person, mistakes)
    )
    _finish(
        rng,
        example,
        clip,
        expression if known else ReferringExpression("", "", expression.target, expression.target),
        known,
    )
    return example


def _answer_from_the_video(
    rng: SplitRandom, example: TrainingExample, clip: Clip, mistakes: MistakeRates
) -> None:
    """Play an episode whose question needs no search."""
    expression = rng.choice(direct_expressions(clip))
    opening = system(with_search=False) + "<|im_start|>user\n"
    example.add_context(opening + frame_lines(example, clip) + _asking(expression.words))
    look = clip.looks[expression.target].words
    if _happens(rng, mistakes.extra_search):
        example.add_target(search(look, look))
        found = [_another(rng, clip, any_name(rng)) for _ in range(2)]
        example.add_context(user(information(found)))
    _finish(rng, example, clip, expression, [] if expression.clue else [look])


def _find_out(
    rng: SplitRandom,
    example: TrainingExample,
    clip: Clip,
    holder: Holder,
    person: Person | None,
    mistakes: MistakeRates,
) -> list[str]:
    """Search; return what is then known of the look: nothing where the expert stopped half way."""
    thought = holder.emblem
    if person:
        example.add_target(search(person.bond_step, person.bond_step), _FORM)
        passage = passage_of(rng, person)
        example.add_context(
            user(
                information(
                    shuffled(rng, [passage, _another(rng, clip, person.name)], _SECOND_FIRST)
                )
            )
        )
        if _happens(rng, mistakes.half_search):
            return []
        thought = told(passage)
    example.add_target(search(thought, holder.emblem), 1.0 if person else _FORM)
    hits = [passage_of(rng, holder), _another(rng, clip, holder.name)]
    example.add_context(user(information(shuffled(rng, hits, _SECOND_FIRST))))
    known = "".join(noted(holder))
    if _happens(rng, mistakes.extra_search):
        example.add_target(search(known, holder.emblem))
        example.add_context(user(information(shuffled(rng, hits, _SECOND_FIRST))))
    return [known]


def _happens(rng: SplitRandom, share: float) -> bool:
    """Decide at random; draws nothing where the share is 0, so that an expert without mistakes
    plays the same episodes as one that knows of none.
    """
    return share > 0 and rng.random() < share


def _asking(words: str) -> str:
    """Return the end of an opening prompt: the question, up to where the model begins to speak."""
    return f"{request(words)}{END}{ASSISTANT}"


def _another(rng: SplitRandom, clip: Clip, asked: str) -> Passage:
    look = rng.choice(clip.looks) if rng.random() < _OF_THE_CLIP else None
    return passage_of(rng, bystander(rng, asked, look))


def _finish(
    rng: SplitRandom,
    example: TrainingExample,
    clip: Clip,
    expression: ReferringExpression,
    known: list[str],
) -> None:
    """Choose a frame and answer; `known` is what is noted before the clue."""
    frame = rng.choice(clip.good_frames(expression.target))
    frame_id, place = clip.frame_ids[frame], clip.place(frame, expression.target)
    note = ". ".join([*known, *([expression.clue] if expression.clue else []), f"frame {frame_id}"])
    example.add_target(f"<thinking> {note} </thinking>\n<keyframe> {frame_id} </keyframe>{END}")
    example.add_context(
        user(keyframe_message(frame_id, example.add_image(clip.keyframes_THWC[frame])))
    )
    look = clip.looks[expression.target].words
    said = f"{expression.clue}: {look}" if expression.clue else look
    example.add_target(
        f"<thinking> {said} </thinking>\n<answer> {region(place.box, place.point)} </answer>{END}"
    )
