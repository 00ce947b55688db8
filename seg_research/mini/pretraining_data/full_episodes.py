"""Whole episodes, as an expert plays them."""

from __future__ import annotations

from collections.abc import Sequence

from seg_research.mini.expert_noise import NEVER, Straying
from seg_research.mini.knowledge import Holder, Passage, Person
from seg_research.mini.pretraining_data.clips import Clip
from seg_research.mini.pretraining_data.grounding import frame_lines, keyframe_message
from seg_research.mini.pretraining_data.lesson import (
    ASSISTANT,
    END,
    Draw,
    Lesson,
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
from seg_research.mini.pretraining_data.referring_expressions import Way, plain, relations
from seg_research.mini.questions import Ability

_ABILITIES = (
    (Ability.ONE_HOP,) * 2
    + (Ability.MULTI_HOP,) * 2
    + (Ability.RELATIONAL,) * 2
    + (Ability.IN_VIDEO,)
)
_FORM, _SECOND_FIRST, _OF_THE_CLIP = 0.5, 0.3, 0.7


def episode(rng: Draw, clips: Sequence[Clip], straying: Straying = NEVER) -> Lesson:
    """Play one episode of any ability; wrong searches, whose results take a real engine, are left
    to the demonstrator.
    """
    clip, ability, lesson = rng.choice(clips), rng.choice(_ABILITIES), Lesson()
    through = relations(clip)
    if ability is Ability.RELATIONAL and not through:
        ability = Ability.ONE_HOP
    if ability is Ability.IN_VIDEO:
        way = rng.choice(plain(clip))
        lesson.show(
            system(with_search=False)
            + "<|im_start|>user\n"
            + frame_lines(lesson, clip)
            + _asking(way.words)
        )
        look = clip.looks[way.target].words
        if _happens(rng, straying.extra_search):
            lesson.say(search(look, look))
            lesson.show(user(information([_another(rng, clip, any_name(rng)) for _ in range(2)])))
        _finish(rng, lesson, clip, way, [] if way.clue else [look])
        return lesson
    if ability is Ability.RELATIONAL:
        way = rng.choice(through)
    else:
        figure = rng.choice(clip.ever_seen())
        way = Way("", "", figure, figure)
    holder = any_holder(rng, clip.looks[way.anchor])
    person = Person(any_name(rng), holder) if ability is Ability.MULTI_HOP else None
    if person:
        words = f"the {holder.kind.role} of {person.bond}"
    else:
        words = (
            way.words.format(anchor=holder.emblem) if way.words else emblem_question(rng, holder)
        )
    lesson.show(system() + "<|im_start|>user\n" + frame_lines(lesson, clip) + _asking(words))
    known = (
        []
        if _happens(rng, straying.no_search)
        else _find_out(rng, lesson, clip, holder, person, straying)
    )
    _finish(rng, lesson, clip, way if known else Way("", "", way.target, way.target), known)
    return lesson


def _find_out(
    rng: Draw, lesson: Lesson, clip: Clip, holder: Holder, person: Person | None, straying: Straying
) -> list[str]:
    """Search; return what is then known of the look: nothing where the expert stopped half way."""
    thought = holder.emblem
    if person:
        lesson.say(search(person.bond_step, person.bond_step), _FORM)
        passage = passage_of(rng, person)
        lesson.show(
            user(
                information(
                    shuffled(rng, [passage, _another(rng, clip, person.name)], _SECOND_FIRST)
                )
            )
        )
        if _happens(rng, straying.half_search):
            return []
        thought = told(passage)
    lesson.say(search(thought, holder.emblem), 1.0 if person else _FORM)
    hits = [passage_of(rng, holder), _another(rng, clip, holder.name)]
    lesson.show(user(information(shuffled(rng, hits, _SECOND_FIRST))))
    known = "".join(noted(holder))
    if _happens(rng, straying.extra_search):
        lesson.say(search(known, holder.emblem))
        lesson.show(user(information(shuffled(rng, hits, _SECOND_FIRST))))
    return [known]


def _happens(rng: Draw, share: float) -> bool:
    """Toss a coin; none where nothing hangs on it, so that an expert who never strays plays as if
    there were no straying.
    """
    return share > 0 and rng.random() < share


def _asking(words: str) -> str:
    """Return the end of an opening prompt: the question, up to where the model begins to speak."""
    return f"{request(words)}{END}{ASSISTANT}"


def _another(rng: Draw, clip: Clip, asked: str) -> Passage:
    look = rng.choice(clip.looks) if rng.random() < _OF_THE_CLIP else None
    return passage_of(rng, bystander(rng, asked, look))


def _finish(rng: Draw, lesson: Lesson, clip: Clip, way: Way, known: list[str]) -> None:
    """Choose a frame and answer; `known` is what is noted before the clue."""
    frame = rng.choice(clip.good_frames(way.target))
    frame_id, place = clip.frame_ids[frame], clip.place(frame, way.target)
    note = ". ".join([*known, *([way.clue] if way.clue else []), f"frame {frame_id}"])
    lesson.say(f"<thinking> {note} </thinking>\n<keyframe> {frame_id} </keyframe>{END}")
    lesson.show(user(keyframe_message(frame_id, lesson.picture(clip.keyframes_THWC[frame]))))
    look = clip.looks[way.target].words
    said = f"{way.clue}: {look}" if way.clue else look
    lesson.say(
        f"<thinking> {said} </thinking>\n<answer> {region(place.box, place.point)} </answer>{END}"
    )
