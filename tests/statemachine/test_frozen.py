"""Frozen containers against plain ones: every version stays what it was, whatever came after it."""

from hypothesis import given
from hypothesis import strategies as st

from odsi_proto.statemachine.frozen import FrozenMap, TimerKey, Timers
from odsi_proto.units import Micros

KEYS = st.integers(0, 40)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "drop"]), st.integers(0, 200), KEYS, st.integers(0, 3)),
    max_size=120,
)
"""What is done, to which of the versions so far (the newest mostly), with which key and value."""


def version(drawn: int, count: int) -> int:
    """The newest three times out of four."""
    return count - 1 if drawn >= 50 else drawn % count


@given(CHANGES)
def test_every_version_of_a_map_stays_what_it_was(changes: list[tuple[str, int, int, int]]) -> None:
    maps: list[FrozenMap[int, int]] = [FrozenMap((key, 0) for key in range(20))]
    models: list[dict[int, int]] = [dict.fromkeys(range(20), 0)]
    for what, drawn, key, value in changes:
        at = version(drawn, len(maps))
        model = dict(models[at])
        if what == "put":
            model[key] = value
            maps.append(maps[at].put(key, value))
        else:
            model.pop(key, None)
            maps.append(maps[at].drop(key))
        models.append(model)
    for each, model in zip(maps, models, strict=True):
        assert list(each.items()) == list(model.items())
        assert len(each) == len(model)
        assert each == FrozenMap(model)
        assert hash(each) == hash(FrozenMap(model))


def test_a_version_that_is_kept_is_freed_from_what_came_after_it() -> None:
    kept = newest = FrozenMap((key, 0) for key in range(20))
    for number in range(1_000):
        newest = newest.put(number % 20, number)
    steps, holder = 0, kept
    while holder._table is None:
        assert holder._change is not None
        holder, steps = holder._change.after, steps + 1
    assert steps <= 21
    assert all(value == 0 for value in kept.values())


def test_a_change_of_the_newest_map_copies_nothing() -> None:
    newest = FrozenMap((key, 0) for key in range(1_000))
    table = newest._items
    for number in range(900):
        newest = newest.put(number, number)
    assert newest._items is table


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "cancel"]), st.integers(0, 200), KEYS, st.integers(0, 50)),
        max_size=120,
    )
)
def test_timers_are_those_of_a_plain_table(changes: list[tuple[str, int, int, int]]) -> None:
    versions, models = [Timers()], [dict[TimerKey, int]()]
    for what, drawn, key, at_us in changes:
        base = version(drawn, len(versions))
        model = dict(models[base])
        if what == "set":
            model["why", key] = at_us
            versions.append(versions[base].set("why", key, at_us))
        else:
            model.pop(("why", key), None)
            versions.append(versions[base].cancel("why", key))
        models.append(model)
        expected = min(((at, each) for each, at in model.items()), default=None)
        assert versions[-1].earliest == (None if expected is None else (expected[0], "why"))
    for timers, model in zip(versions, models, strict=True):
        due = [each for at, each in sorted((at, each) for each, at in model.items() if at <= 25)]
        assert timers.due(Micros(25)) == due
        assert timers == Timers(FrozenMap({each: Micros(at) for each, at in model.items()}))


def test_a_timer_that_is_moved_all_the_time_does_not_fill_the_heap() -> None:
    timers = Timers()
    for at_us in range(10_000):
        timers = timers.set("idle", 1, at_us)
    assert timers.earliest == (9_999, "idle")
    assert timers._order is not None
    assert len(timers._order.heap) < 100
