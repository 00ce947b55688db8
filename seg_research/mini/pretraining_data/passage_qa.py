"""Lessons of text alone: look a name up among passages, and do so in the turns of an episode."""

from __future__ import annotations

from seg_research.mini.knowledge import Holder, Person
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
    like_name,
    noted,
    passage_of,
    request,
    search,
    shuffled,
    system,
    told,
    user,
)

MOST_PASSAGES = 6
_MANY_SHARE, _ONE_HOP_SHARE = 0.6, 0.24
_FORM, _COPY = 0.3, 0.7


def read_many(rng: Draw, lesson: Lesson, count: int) -> None:
    """Show passages, then ask for each of them: as many looked-up names as possible for every
    token.
    """
    holders = [any_holder(rng) for _ in range(count)]
    if count > 2 and rng.random() < 0.5:
        holders[1] = type(holders[1])(
            like_name(rng, holders[0].name), holders[1].kind, holders[1].look
        )
    lesson.show(user(information([passage_of(rng, holder) for holder in holders])))
    rng.shuffle(holders)
    for holder in holders:
        note, look = noted(holder)
        lesson.say(f"<thinking> {note}", 0.05)
        lesson.say(look)
        lesson.say(f" </thinking>{END}{ASSISTANT}", 0.02)


def read_one_hop(rng: Draw, lesson: Lesson) -> None:
    """Play the searching half of a question about an emblem."""
    holder = any_holder(rng)
    lesson.show(user(request(emblem_question(rng, holder))))
    lesson.say(search(holder.emblem, holder.emblem), _FORM)
    _find_out(rng, lesson, holder)


def read_multi_hop(rng: Draw, lesson: Lesson) -> None:
    """Play the searching half of a question about somebody's emblem."""
    holder = any_holder(rng)
    person = Person(any_name(rng), holder)
    lesson.show(user(request(f"the {holder.kind.role} of {person.bond}")))
    lesson.say(search(person.bond_step, person.bond_step), _FORM)
    passage = passage_of(rng, person)
    lesson.show(
        user(information(shuffled(rng, [passage, passage_of(rng, bystander(rng, person.name))])))
    )
    lesson.say(search(told(passage), holder.emblem), _COPY)
    _find_out(rng, lesson, holder)


def _find_out(rng: Draw, lesson: Lesson, holder: Holder) -> None:
    hits = [passage_of(rng, holder), passage_of(rng, bystander(rng, holder.name))]
    lesson.show(user(information(shuffled(rng, hits))))
    note, look = noted(holder)
    lesson.say(f"<thinking> {note}", _FORM)
    lesson.say(look)
    lesson.say(f" </thinking>{END}", 0.1)


def reading(rng: Draw, max_chars: int) -> Lesson:
    """Fill a sequence with exercises in reading."""
    lesson = Lesson()
    lesson.show(system())
    length = 0
    while length < max_chars:
        draw = rng.random()
        if draw < _MANY_SHARE:
            read_many(rng, lesson, rng.randint(2, MOST_PASSAGES))
        elif draw < _MANY_SHARE + _ONE_HOP_SHARE:
            read_one_hop(rng, lesson)
        else:
            read_multi_hop(rng, lesson)
        length = sum(len(text) for text, _ in lesson.pieces)
    return lesson


def examination(rng: Draw) -> Lesson:
    """Pose one question whose passages were found, one or two hops; loss falls on the words of the
    look alone.
    """
    lesson = Lesson()
    lesson.show(system())
    (read_one_hop if rng.random() < 0.5 else read_multi_hop)(rng, lesson)
    lesson.pieces = [(text, float(weight == 1.0)) for text, weight in lesson.pieces]
    return lesson
