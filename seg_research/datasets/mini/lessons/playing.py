"""Whole episodes, as an expert plays them who never strays."""

from __future__ import annotations

from collections.abc import Sequence

from seg_research.datasets.mini.knowledge import Passage, Person
from seg_research.datasets.mini.lessons.clips import Clip
from seg_research.datasets.mini.lessons.lesson import (
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
from seg_research.datasets.mini.lessons.seeing import frame_lines, keyframe_message
from seg_research.datasets.mini.lessons.ways import Way, plain, relations
from seg_research.datasets.mini.questions import Ability

_ABILITIES = (Ability.ONE_HOP,) * 2 + (Ability.MULTI_HOP,) * 2 + (Ability.RELATIONAL,) * 2 + (Ability.IN_VIDEO,)
_FORM, _SECOND_FIRST, _OF_THE_CLIP = 0.5, 0.3, 0.7


def episode(rng: Draw, clips: Sequence[Clip]) -> Lesson:
    """Play one episode of any ability."""
    clip, ability, lesson = rng.choice(clips), rng.choice(_ABILITIES), Lesson()
    through = relations(clip)
    if ability is Ability.RELATIONAL and not through:
        ability = Ability.ONE_HOP
    if ability is Ability.IN_VIDEO:
        way = rng.choice(plain(clip))
        lesson.show(system(with_search=False) + user(frame_lines(lesson, clip) + request(way.words)))
        _finish(rng, lesson, clip, way, [] if way.clue else [clip.looks[way.target].words])
        return lesson
    if ability is Ability.RELATIONAL:
        way = rng.choice(through)
    else:
        figure = rng.choice(clip.ever_seen())
        way = Way("", "", figure, figure)
    holder = any_holder(rng, clip.looks[way.anchor])
    opening = system() + "<|im_start|>user\n" + frame_lines(lesson, clip)
    if ability is Ability.MULTI_HOP:
        person = Person(any_name(rng), holder)
        lesson.show(opening + _asking(f"the {holder.kind.role} of {person.bond}"))
        lesson.say(search(person.bond_step, person.bond_step), _FORM)
        passage = passage_of(rng, person)
        lesson.show(user(information(shuffled(rng, [passage, _another(rng, clip, person.name)], _SECOND_FIRST))))
        lesson.say(search(told(passage), holder.emblem))
    else:
        words = way.words.format(anchor=holder.emblem) if way.words else emblem_question(rng, holder)
        lesson.show(opening + _asking(words))
        lesson.say(search(holder.emblem, holder.emblem), _FORM)
    hits = [passage_of(rng, holder), _another(rng, clip, holder.name)]
    lesson.show(user(information(shuffled(rng, hits, _SECOND_FIRST))))
    _finish(rng, lesson, clip, way, ["".join(noted(holder))])
    return lesson


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
    lesson.say(f"<thinking> {said} </thinking>\n<answer> {region(place.box, place.point)} </answer>{END}")
