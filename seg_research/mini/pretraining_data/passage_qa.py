"""Training examples of text alone: look a name up among passages, and do so in the turns of an
episode.
"""

from __future__ import annotations

from seg_research.mini.knowledge import Holder, Person
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


def read_many(rng: SplitRandom, example: TrainingExample, count: int) -> None:
    """Show passages, then ask for each of them: as many looked-up names as possible for every
    token.
    """
    holders = [any_holder(rng) for _ in range(count)]
    if count > 2 and rng.random() < 0.5:
        holders[1] = type(holders[1])(
            like_name(rng, holders[0].name), holders[1].kind, holders[1].look
        )
    example.add_context(user(information([passage_of(rng, holder) for holder in holders])))
    rng.shuffle(holders)
    for holder in holders:
        note, look = noted(holder)
        example.add_target(f"<thinking> {note}", 0.05)
        example.add_target(look)
        example.add_target(f" </thinking>{END}{ASSISTANT}", 0.02)


def read_one_hop(rng: SplitRandom, example: TrainingExample) -> None:
    """Play the searching half of a question about an emblem."""
    holder = any_holder(rng)
    example.add_context(user(request(emblem_question(rng, holder))))
    example.add_target(search(holder.emblem, holder.emblem), _FORM)
    _find_out(rng, example, holder)


def read_multi_hop(rng: SplitRandom, example: TrainingExample) -> None:
    """Play the searching half of a question about somebody's emblem."""
    holder = any_holder(rng)
    person = Person(any_name(rng), holder)
    example.add_context(user(request(f"the {holder.kind.role} of {person.bond}")))
    example.add_target(search(person.bond_step, person.bond_step), _FORM)
    passage = passage_of(rng, person)
    example.add_context(
        user(information(shuffled(rng, [passage, passage_of(rng, bystander(rng, person.name))])))
    )
    example.add_target(search(told(passage), holder.emblem), _COPY)
    _find_out(rng, example, holder)


def _find_out(rng: SplitRandom, example: TrainingExample, holder: Holder) -> None:
    hits = [passage_of(rng, holder), passage_of(rng, bystander(rng, holder.name))]
    example.add_context(user(information(shuffled(rng, hits))))
    note, look = noted(holder)
    example.add_target(f"<thinking> {note}", _FORM)
    example.add_target(look)
    example.add_target(f" </thinking>{END}", 0.1)


def passage_qa(rng: SplitRandom, max_chars: int) -> TrainingExample:
    """Fill a sequence with questions about passages."""
    example = TrainingExample()
    example.add_context(system())
    length = 0
    while length < max_chars:
        draw = rng.random()
        if draw < _MANY_SHARE:
            read_many(rng, example, rng.randint(2, MOST_PASSAGES))
        elif draw < _MANY_SHARE + _ONE_HOP_SHARE:
            read_one_hop(rng, example)
        else:
            read_multi_hop(rng, example)
        length = sum(len(text) for text, _ in example.pieces)
    return example


def exam_question(rng: SplitRandom) -> TrainingExample:
    """Pose one question whose passages were found, one or two hops; loss falls on the words of the
    look alone.
    """
    example = TrainingExample()
    example.add_context(system())
    (read_one_hop if rng.random() < 0.5 else read_multi_hop)(rng, example)
    example.pieces = [(text, float(weight == 1.0)) for text, weight in example.pieces]
    return example
