"""What a piece of compute is expected to take, learned from a machine whose true times are known here."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.profile import share

from odsi_proto.node.compute_time import FIRST_GUESS_ROW_US, FIRST_GUESS_US, NOTHING, ComputeTimes, Work
from odsi_proto.units import Micros


def true_us(work: Work) -> Micros:
    """4 ms for the weights, 0.7 ms for each row, 0.3 us for each position that is read."""
    return Micros(4_000 + 700 * work.rows + work.reads * 3 // 10)


def decode(batch: int, context: int) -> Work:
    return Work(batch, batch * context, is_decode=True)


def taught(works: list[Work], *, noise: float = 0.0) -> ComputeTimes:
    times, chance = ComputeTimes(), random.Random(1)
    for work in works:
        times.observe(work, Micros(round(true_us(work) * (1 + noise * (2 * chance.random() - 1)))))
    return times


def test_of_nothing_that_ran_a_long_time_is_expected() -> None:
    times = ComputeTimes()
    assert not times.knows(is_decode=True)
    assert times.expected_us(decode(1, 0)) == FIRST_GUESS_US + FIRST_GUESS_ROW_US


def test_one_measurement_is_enough_for_the_same_again() -> None:
    times = taught([decode(1, 100)])
    assert times.expected_us(decode(1, 100)) == true_us(decode(1, 100))


def test_what_never_ran_of_one_kind_is_taken_from_the_other() -> None:
    times = taught([Work.of(0, 128)])
    assert times.expected_us(decode(1, 1)) <= true_us(Work.of(0, 128))
    assert not times.knows(is_decode=True)


@pytest.mark.parametrize("batch", [1, 2, 3, 6, 12, 16, 24, 32])
def test_batches_between_those_that_ran_are_expected_within_a_tenth(batch: int) -> None:
    times = taught([decode(size, 200) for size in (1, 2, 4, 8, 16, 32)] * 8, noise=0.1)
    assert times.expected_us(decode(batch, 200)) == pytest.approx(true_us(decode(batch, 200)), rel=0.1)


@pytest.mark.parametrize("count", [16, 40, 64, 100, 128])
@pytest.mark.parametrize("first", [0, 512, 2_048])
def test_a_prefill_is_expected_within_a_fifth_at_any_context(count: int, first: int) -> None:
    ran = [Work.of(at, size) for at in (0, 256, 1_024, 2_048, 4_096) for size in (16, 64, 128)]
    times = taught(ran * 4, noise=0.05)
    work = Work.of(first, count)
    assert times.expected_us(work) == pytest.approx(true_us(work), rel=0.2)


@pytest.mark.parametrize("batch", [2, 4, 64])
def test_with_one_size_known_a_larger_batch_is_not_thought_shorter_than_it_is(batch: int) -> None:
    work = decode(batch, 50)
    assert taught([decode(1, 50)] * 8).expected_us(work) >= true_us(work)


def test_contexts_that_hardly_differ_teach_no_slope() -> None:
    # Noise over the little that they differ by would say that 8,000 positions take seconds.
    times = taught([decode(1, 100 + step % 8) for step in range(64)], noise=0.2)
    assert times.expected_us(decode(1, 8_000)) < 2 * true_us(decode(1, 8_000))


def test_one_stall_of_the_machine_moves_the_mean_by_less_than_half() -> None:
    times = taught([decode(1, 10)] * 20)
    usual_us = times.expected_us(decode(1, 10))
    times.observe(decode(1, 10), Micros(10_000_000))
    assert times.expected_us(decode(1, 10)) < 1.5 * usual_us


def test_a_machine_that_stays_slower_is_followed_within_ten_steps() -> None:
    times = taught([decode(1, 10)] * 50)
    slow_us = Micros(3 * true_us(decode(1, 10)))
    for _ in range(10):
        times.observe(decode(1, 10), slow_us)
    assert times.expected_us(decode(1, 10)) > 0.7 * slow_us


def test_where_times_vary_the_safe_time_is_longer_than_the_expected_one() -> None:
    steady, noisy = taught([decode(1, 10)] * 30), taught([decode(1, 10)] * 30, noise=0.4)
    work = decode(1, 10)
    assert steady.safe_us(work) == steady.expected_us(work)
    assert noisy.safe_us(work) > 1.2 * noisy.expected_us(work)


def test_work_beside_other_work_is_a_decode_only_if_both_are() -> None:
    assert Work.of(7, 1).beside(Work.of(9, 1)) == Work(2, 18, is_decode=True)
    assert Work.of(7, 1).beside(Work.of(0, 3)) == Work(4, 14, is_decode=False)


@given(
    ran=st.lists(st.tuples(st.integers(1, 512), st.integers(0, 8_192), st.integers(1, 10**7)), max_size=30),
    rows_max=st.integers(1, 512),
    first=st.integers(0, 8_192),
    limit_us=st.integers(0, 10**7),
)
@share(50)
def test_the_rows_that_fit_fit_and_every_time_is_positive(
    ran: list[tuple[int, int, int]], rows_max: int, first: int, limit_us: int
) -> None:
    times = ComputeTimes()
    for count, at, took_us in ran:
        times.observe(Work.of(at, count), Micros(took_us))
    fitting = times.rows_within(first, rows_max, NOTHING, limit_us)
    assert 0 <= fitting <= rows_max
    assert fitting == 0 or times.expected_us(Work.of(first, fitting)) <= limit_us
    assert 1 <= times.expected_us(Work.of(first, rows_max)) <= times.safe_us(Work.of(first, rows_max))
