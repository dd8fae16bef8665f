"""Choosing tokens: greedy, by chance, and reproducibly."""

import math

import pytest
import torch

from odsi_proto.errors import ConfigError, ModelError
from odsi_proto.kernels.sampling import SEED_MAX, Sampler, Sampling

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def draws(sampling: Sampling, count: int = 400) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.pick(LOGITS) for _ in range(count)]


def share(tokens: list[int], token: int) -> float:
    return tokens.count(token) / len(tokens)


def test_greedy_takes_the_most_likely_and_the_first_of_equals() -> None:
    sampler = Sampler(Sampling.greedy())
    assert sampler.pick(LOGITS) == 0
    assert sampler.pick(torch.tensor([1.0, 3.0, 3.0])) == 1


def test_a_seed_gives_the_same_tokens_and_another_gives_others() -> None:
    assert draws(Sampling(temperature=1.0, seed=7)) == draws(Sampling(temperature=1.0, seed=7))
    assert draws(Sampling(temperature=1.0, seed=7)) != draws(Sampling(temperature=1.0, seed=8))


def test_a_drawn_seed_is_told_and_can_be_given_again() -> None:
    sampler = Sampler(Sampling(temperature=1.0))
    again = Sampler(Sampling(temperature=1.0, seed=sampler.seed))
    assert [sampler.pick(LOGITS) for _ in range(50)] == [again.pick(LOGITS) for _ in range(50)]


def test_samplers_do_not_share_their_chances() -> None:
    left, right = (Sampler(Sampling(temperature=1.0, seed=7)) for _ in range(2))
    alone = draws(Sampling(temperature=1.0, seed=7), 20)
    assert [(left.pick(LOGITS), right.pick(LOGITS)) for _ in range(20)] == [(token, token) for token in alone]


def test_tokens_come_as_often_as_they_are_likely() -> None:
    tokens = draws(Sampling(temperature=1.0, seed=1), 4_000)
    assert share(tokens, 0) == pytest.approx(0.5, abs=0.03)
    assert share(tokens, 3) == pytest.approx(0.05, abs=0.02)


def test_a_low_temperature_prefers_the_likely() -> None:
    assert share(draws(Sampling(temperature=0.2, seed=1)), 0) > 0.9


@pytest.mark.parametrize(
    ("top_p", "tokens"),
    [(1e-9, {0}), (0.49, {0}), (0.51, {0, 1}), (0.79, {0, 1}), (0.81, {0, 1, 2}), (1, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, tokens: set[int]) -> None:
    assert set(draws(Sampling(temperature=1.0, top_p=top_p, seed=3))) == tokens


@pytest.mark.parametrize("sampling", [Sampling.greedy(), Sampling(temperature=1.0, seed=1)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(sampling: Sampling, value: float) -> None:
    with pytest.raises(ModelError, match="the logits have a value that is not finite"):
        Sampler(sampling).pick(torch.tensor([0.0, value]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1: expected a number of at least 0"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"temperature": math.inf}, "temperature inf"),
        ({"top_p": 0.0}, "top-p 0.0: expected a number above 0 and at most 1"),
        ({"top_p": 1.001}, "top-p 1.001"),
        ({"top_p": math.nan}, "top-p nan"),
        ({"seed": -1}, "seed -1: expected an integer from 0 to"),
        ({"seed": SEED_MAX + 1}, f"seed {SEED_MAX + 1}"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sampling(**{"temperature": 1.0, **changes})
    assert str(caught.value).startswith(message)


def test_settings_at_the_bounds_are_taken() -> None:
    for seed in (0, SEED_MAX):
        Sampler(Sampling(temperature=1e-6, top_p=1.0, seed=seed)).pick(LOGITS)
