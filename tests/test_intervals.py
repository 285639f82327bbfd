"""Do intervals over seeds cover the truth as often as they say, and agree with cases by hand?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from tutorial_utils.evidence import Interval, bootstrap, difference

TRIALS = 1000


def coverage(truth: float, interval: Callable[[np.random.Generator], Interval]) -> float:
    """How often the interval of fresh seeds covers the truth."""
    rng = np.random.default_rng(0)
    found = [interval(rng) for _ in range(TRIALS)]
    return np.mean([i.low <= truth <= i.high for i in found])


def outcomes(rng: np.random.Generator, seeds: int, failure: float) -> np.ndarray:
    """Seeds that win every episode or none, [seeds, episodes]."""
    return np.repeat(rng.random((seeds, 1)) >= failure, 20, axis=1)


@pytest.mark.parametrize("seeds", [5, 10])
def test_normal_seeds_are_covered(seeds):
    found = coverage(0, lambda rng: bootstrap(rng.normal(size=seeds), resamples=400))
    assert 0.92 <= found <= 0.975  # the percentile bootstrap: 0.81 to 0.86 with five


@pytest.mark.parametrize("failure", [0.04, 0.1, 0.2, 0.3, 0.45])
@pytest.mark.parametrize("seeds", [5, 10])
def test_all_or_nothing_seeds_are_covered(seeds, failure):
    pure = coverage(
        1 - failure, lambda rng: bootstrap(outcomes(rng, seeds, failure), resamples=400)
    )
    assert pure >= (0.95 if failure < 0.3 else 0.92)

    def nearly(rng: np.random.Generator) -> Interval:
        chance = np.where(rng.random((seeds, 1)) < failure, 0.1, 0.9)
        return bootstrap(rng.random((seeds, 100)) < chance, resamples=400)

    assert coverage(0.9 - 0.8 * failure, nearly) >= 0.9


def test_pooled_episodes_would_not_cover():
    """What the seed-level interval replaces: one training in ten fails, and five seeds agree."""

    def pooled(rng: np.random.Generator) -> Interval:
        won = outcomes(rng, 5, 0.1)
        ends = stats.binomtest(int(won.sum()), won.size).proportion_ci(method="wilson")
        return Interval(won.mean(), min(ends.low, won.mean()), max(ends.high, won.mean()))

    assert coverage(0.9, pooled) < 0.45


@pytest.mark.parametrize("episodes", [1, 20, 200])
def test_seeds_that_agree_keep_the_width_that_so_many_seeds_leave(episodes):
    interval = bootstrap(np.ones((5, episodes)))
    wilson = stats.binomtest(5, 5).proportion_ci(method="wilson")  # of the seeds, by hand 0.566
    assert interval.low == pytest.approx(wilson.low)
    assert interval.low == pytest.approx(5 / (5 + 1.959964**2))
    assert interval.high == 1


def test_seeds_that_win_half_of_the_time_are_worth_their_episodes():
    half = np.tile([0, 1], (5, 10))
    interval = bootstrap(half)
    wilson = stats.binomtest(50, 100).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high))


def test_a_worse_seed_does_not_narrow_the_interval():
    good = np.ones((5, 20))
    worse = good.copy()
    worse[0, :3] = 0
    assert bootstrap(worse).low < bootstrap(good).low


def test_more_seeds_narrow_it_and_more_episodes_hardly():
    widths = {
        (n, e): (lambda i: i.high - i.low)(bootstrap(np.ones((n, e))))
        for n, e in ((5, 20), (5, 2000), (20, 20))
    }
    assert widths[5, 2000] == pytest.approx(widths[5, 20], rel=0.01)
    assert widths[20, 20] < 0.5 * widths[5, 20]


# ---------------------------------------------------------------- differences


def test_two_paired_seeds_by_hand():
    """Differences 0 and 2: the case of `test_two_seeds_by_hand`, whatever the seeds share."""
    gap = difference([10.0, 102.0], [10.0, 100.0], paired=True)
    reach = np.sqrt(2) * stats.t.ppf(0.975, 1) / stats.norm.ppf(0.975)
    assert (gap.estimate, gap.low, gap.high) == pytest.approx((1, 1 - reach, 1 + reach))


def test_pairs_drop_what_seeds_share():
    rng = np.random.default_rng(0)
    shared, gain = rng.normal(0, 5, 8), rng.normal(1, 0.1, 8)
    paired, apart = (difference(shared + gain, shared, paired=p) for p in (True, False))
    assert paired.estimate == pytest.approx(apart.estimate)
    assert paired.high - paired.low < 0.05 * (apart.high - apart.low)
    theirs = stats.ttest_rel(shared + gain, shared).confidence_interval()
    assert paired.low == pytest.approx(theirs.low, abs=0.03)
    assert paired.high == pytest.approx(theirs.high, abs=0.03)


def test_opposite_outcomes_by_hand():
    """Five seeds always win, five never: Newcombe's interval of 5 of 5 against 0 of 5."""
    won, lost = np.ones((5, 30)), np.zeros((5, 30))
    wilson = 1 - 5 / (5 + 1.959964**2)
    for paired in (True, False):
        gap = difference(won, lost, paired=paired)
        assert (gap.low, gap.high) == pytest.approx((1 - np.hypot(wilson, wilson), 1))


@pytest.mark.parametrize("seeds", [5, 10])
def test_differences_are_covered(seeds):
    def apart(rng: np.random.Generator) -> Interval:
        arms = rng.normal(1, 1, seeds), rng.normal(0, 3, seeds)
        return difference(*arms, resamples=400, paired=False)

    def together(rng: np.random.Generator) -> Interval:
        shared = rng.normal(0, 5, seeds)
        arms = shared + rng.normal(1, 1, seeds), shared + rng.normal(0, 1, seeds)
        return difference(*arms, resamples=400, paired=True)

    assert 0.92 <= coverage(1, apart) <= 0.975
    assert 0.92 <= coverage(1, together) <= 0.975


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("failure", [0.04, 0.1, 0.3])
def test_differences_of_all_or_nothing_seeds_are_covered(failure, paired):
    """The method fails on some seeds; the rival wins on as few."""

    def gap(rng: np.random.Generator) -> Interval:
        arms = outcomes(rng, 5, failure), outcomes(rng, 5, 1 - failure)
        return difference(*arms, resamples=400, paired=paired)

    assert coverage(1 - 2 * failure, gap) >= 0.9


def test_pairs_need_the_same_seeds():
    with pytest.raises(ValueError, match="same seeds, not 3 and 2") as error:
        difference([1.0, 2.0, 3.0], [1.0, 2.0], paired=True)
    assert "\n" not in str(error.value)


def test_a_difference_says_whether_it_is_paired():
    with pytest.raises(TypeError, match="paired"):
        difference([1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize("seeds", [5, 10])
def test_pairs_that_tend_to_fail_together_are_covered(seeds):
    """Each arm fails on three seeds in ten, on two of them together."""

    def gap(rng: np.random.Generator) -> Interval:
        draw = rng.random((seeds, 1))
        arms = (np.repeat(won, 20, axis=1) for won in (draw > 0.3, (draw > 0.2) & (draw < 0.9)))
        return difference(*arms, resamples=400, paired=True)

    assert coverage(0.0, gap) >= 0.95


def test_functions_of_rates_are_not_cut_to_rates():
    rates = np.array([0.2, 0.3, 0.1, 0.25, 0.15])
    less = bootstrap(rates, lambda x, axis: x.mean(axis) - 0.5)
    mean = bootstrap(rates)
    assert (less.low, less.high) == pytest.approx((mean.low - 0.5, mean.high - 0.5))
