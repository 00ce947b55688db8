from functools import partial
from math import exp, sqrt

import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import post_segmentation.xmem.memory as memory_module
from post_segmentation.xmem.memory import (
    Cells,
    Memory,
    MemorySettings,
    Query,
    evict,
    nearest,
    potentiate,
    similarity,
)

SMALL = MemorySettings(top_k=5, max_frames=10, min_frames=5, num_prototypes=12, max_long_term=100)
CELLS_PER_FRAME, CHANNELS, OBJECTS, VALUES = 6, 4, 2, 3


def frame(generator):
    """Query, shrinkage and values of a random frame."""
    rand = partial(torch.rand, generator=generator)
    query = Query(rand(CELLS_PER_FRAME, CHANNELS), rand(CELLS_PER_FRAME, CHANNELS))
    return query, 1 + rand(CELLS_PER_FRAME, 1), rand(CELLS_PER_FRAME, OBJECTS, VALUES)


def cells(num_cells, generator, usage=None):
    rand = partial(torch.rand, generator=generator)
    used = rand(num_cells, 1) if usage is None else torch.tensor(usage)[:, None]
    return Cells(
        rand(num_cells, CHANNELS),
        1 + rand(num_cells, 1),
        rand(num_cells, CHANNELS),
        rand(num_cells, OBJECTS, VALUES),
        used,
        torch.ones(num_cells, 1),
    )


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 7), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_similarity_is_its_definition(seed, num_asking, num_remembered, num_channels):
    generator = torch.Generator().manual_seed(seed)
    q, e = (torch.rand(num_asking, num_channels, generator=generator) for _ in range(2))
    k, s = (
        torch.rand(num_remembered, num_channels, generator=generator),
        1 + torch.rand(num_remembered, 1, generator=generator),
    )
    found = similarity(Query(q, e), k, s)
    for j in range(num_asking):
        for i in range(num_remembered):
            distance = sum(
                float(e[j, c]) * (float(k[i, c]) - float(q[j, c])) ** 2 for c in range(num_channels)
            )
            assert float(found[j, i]) == pytest.approx(
                -float(s[i]) * distance / sqrt(num_channels), abs=1e-5
            )


def test_reading_is_a_softmax_over_the_most_similar_cells_alone():
    generator = torch.Generator().manual_seed(0)
    memory = Memory(SMALL)
    written, query = [frame(generator) for _ in range(3)], frame(generator)[0]
    for each in written:
        memory.write(*each)
    keys, shrinkages, values = (
        torch.cat(parts) for parts in zip(*((q.key_QC, s, v) for q, s, v in written), strict=True)
    )
    scores = similarity(query, keys, shrinkages)
    answer = memory.read(query)
    for j, row in enumerate(scores.tolist()):
        best = sorted(range(len(row)), key=lambda i: -row[i])[: SMALL.top_k]
        total = sum(exp(row[i]) for i in best)
        expected = sum(exp(row[i]) / total * values[i] for i in best)
        torch.testing.assert_close(answer[j], expected)


def test_reading_in_turns_is_the_same(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    written, query = [frame(generator) for _ in range(3)], frame(generator)[0]
    whole, parts = Memory(SMALL), Memory(SMALL)
    for each in written:
        whole.write(*each)
        parts.write(*each)
    expected = whole.read(query)
    monkeypatch.setattr(memory_module, "MAX_SIMILARITIES", 2 * 3 * CELLS_PER_FRAME)
    torch.testing.assert_close(parts.read(query), expected)
    torch.testing.assert_close(parts.working.usage_N1, whole.working.usage_N1)


def test_fewer_cells_than_top_k_all_answer():
    weights, indices = nearest(torch.tensor([[-1.0, -2.0]]), 30)
    assert sorted(indices[0].tolist()) == [0, 1]
    assert float(weights.sum()) == pytest.approx(1)


def test_far_away_queries_still_get_an_answer():
    """Similarities of thousands below zero: a softmax without care would be 0/0."""
    weights, _ = nearest(torch.tensor([[-5000.0, -5003.0]]), 2)
    assert float(weights.sum()) == pytest.approx(1)


def test_usage_is_what_the_cells_have_given():
    generator = torch.Generator().manual_seed(0)
    memory = Memory(SMALL)
    memory.write(*frame(generator))
    for _ in range(4):
        memory.read(frame(generator)[0])
    assert float(memory.working.usage_N1.sum()) == pytest.approx(4 * CELLS_PER_FRAME, rel=1e-5)
    torch.testing.assert_close(memory.working.age_N1, torch.full((CELLS_PER_FRAME, 1), 4.0))
    memory.write(*frame(generator))
    assert memory.working.usage_rate_N()[-1] == 0, "a cell that was never asked is unused"


def test_memory_grows_consolidates_and_stays_bounded_over_a_thousand_frames():
    generator = torch.Generator().manual_seed(0)
    memory, sizes = Memory(SMALL), []
    first = frame(generator)
    for number in range(1000):
        each = first if number == 0 else frame(generator)
        if number:
            assert torch.isfinite(memory.read(each[0])).all()
        if number % SMALL.every == 0:
            memory.write(*each)
            sizes.append(
                (
                    len(memory.working) // CELLS_PER_FRAME,
                    0 if memory.long_term is None else len(memory.long_term),
                )
            )
    # Nine frames at most are ever kept: the tenth starts a consolidation that leaves five and makes
    # twelve prototypes.
    assert sizes[:11] == [(n, 0) for n in range(1, 10)] + [(5, 12), (6, 12)]
    assert [size for size in sizes if size[0] == 5][1:4] == [(5, 12), (5, 24), (5, 36)]
    assert max(working for working, _ in sizes) == 9
    assert max(long for _, long in sizes) == SMALL.max_long_term
    assert sizes[-1][1] == SMALL.max_long_term
    torch.testing.assert_close(memory.working.key_NC[:CELLS_PER_FRAME], first[0].key_QC)
    assert {len(getattr(memory.long_term, name)) for name in Cells.__dataclass_fields__} == {
        SMALL.max_long_term
    }


def test_the_default_settings_are_the_published_ones():
    s = MemorySettings()
    assert (s.every, s.top_k, s.max_frames, s.min_frames, s.num_prototypes, s.max_long_term) == (
        5,
        30,
        10,
        5,
        128,
        10_000,
    )


def test_prototypes_are_the_most_used_cells_and_their_values_a_mean_of_all():
    generator = torch.Generator().manual_seed(0)
    candidates = cells(20, generator)
    prototypes = potentiate(candidates, 4)
    most_used = candidates.usage_rate_N().topk(4).indices
    torch.testing.assert_close(prototypes.key_NC, candidates.key_NC[most_used])
    for which, prototype in enumerate(most_used.tolist()):
        query = Query(candidates.key_NC[[prototype]], candidates.selection_NC[[prototype]])
        weight = similarity(query, candidates.key_NC, candidates.shrinkage_N1)[0].softmax(0)
        assert float(weight.sum()) == pytest.approx(1)
        torch.testing.assert_close(
            prototypes.value_NOC[which], (weight[:, None, None] * candidates.value_NOC).sum(0)
        )
        torch.testing.assert_close(prototypes.shrinkage_N1[which], weight @ candidates.shrinkage_N1)
    assert (prototypes.usage_N1 == 0).all()


def test_consolidation_of_equal_values_keeps_what_is_answered():
    """Whatever the affinities, they sum to 1 before and after: memory that says one thing goes on
    saying it.
    """
    generator = torch.Generator().manual_seed(0)
    memory, same = Memory(SMALL), torch.rand(1, OBJECTS, VALUES, generator=generator)
    for _ in range(60):
        query, shrinkage, _ = frame(generator)
        memory.write(query, shrinkage, same.expand(CELLS_PER_FRAME, -1, -1).clone())
        torch.testing.assert_close(memory.read(query), same.expand(CELLS_PER_FRAME, -1, -1))
    assert memory.long_term is not None


def test_what_left_working_memory_is_still_known():
    """A cell whose frame was consolidated long ago is answered from long-term memory, with a value
    near its own.
    """
    generator = torch.Generator().manual_seed(0)
    memory = Memory(
        MemorySettings(
            top_k=1, max_frames=4, min_frames=2, num_prototypes=CELLS_PER_FRAME, max_long_term=1000
        )
    )
    ones = torch.ones(CELLS_PER_FRAME, CHANNELS)
    for number in range(12):
        keys = 100.0 * number + 10 * torch.rand(CELLS_PER_FRAME, CHANNELS, generator=generator)
        memory.write(
            Query(keys, ones),
            ones[:, :1],
            torch.full((CELLS_PER_FRAME, OBJECTS, VALUES), float(number)),
        )
        memory.read(Query(keys, ones))
    answer = memory.read(Query(torch.full((1, CHANNELS), 205.0), ones[:1]))
    torch.testing.assert_close(answer, torch.full_like(answer, 2.0))


def test_eviction_drops_the_least_used_and_keeps_the_order():
    kept = evict(cells(5, torch.Generator().manual_seed(0), usage=[3.0, 0.5, 2.0, 0.1, 1.0]), 3)
    assert kept.usage_N1.flatten().tolist() == [3.0, 2.0, 1.0]
    equal = cells(5, torch.Generator().manual_seed(0), usage=[1.0] * 5)
    assert len(evict(equal, 3)) == 3, "equally used cells must not all go"
    assert evict(equal, 5) is equal


def test_a_grid_smaller_than_the_number_of_prototypes_consolidates():
    memory = Memory(MemorySettings(max_frames=3, min_frames=2, num_prototypes=128))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        memory.write(*frame(generator))
    assert len(memory.long_term) == 4 * CELLS_PER_FRAME
