"""A ranking gives the least of what it holds, however often things are ranked again or dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import share

from odsi_proto.node.ranking import Ranking

CHANGES = st.lists(
    st.tuples(st.integers(0, 7), st.one_of(st.none(), st.integers(0, 20)), st.booleans()), max_size=200
)
"""A thing and its new rank or None to drop it, and whether one is taken after it."""


@given(CHANGES)
@share(100)
def test_the_least_comes_first_and_each_thing_once(changes: list[tuple[int, int | None, bool]]) -> None:
    ranking: Ranking[int] = Ranking()
    model: dict[int, tuple[int, int]] = {}
    for thing, rank, takes in changes:
        if rank is None:
            ranking.drop(thing)
            model.pop(thing, None)
        else:
            ranking.put(thing, (rank, thing))
            model[thing] = (rank, thing)
        assert len(ranking) == len(model)
        assert set(ranking) == set(model)
        if takes and model:
            least = min(model, key=lambda each: model[each])
            assert ranking.first() == (model[least], least)
            assert ranking.pop() == least
            del model[least]


def test_of_an_empty_ranking_nothing_can_be_taken() -> None:
    ranking: Ranking[int] = Ranking()
    ranking.put(1, (0, 0))
    ranking.drop(1)
    ranking.drop(1)
    assert ranking.first() is None
    with pytest.raises(IndexError):
        ranking.pop()


def test_what_was_ranked_again_and_again_does_not_pile_up() -> None:
    ranking: Ranking[int] = Ranking()
    for rank in range(10_000):
        ranking.put(rank % 4, (rank, 0))
    assert len(ranking._heap) <= 2 * 4 + 16 + 1
