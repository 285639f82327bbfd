"""95% intervals over training seeds that keep their promise with five of them.

The seed is the unit: a claim speaks about the mean of further training runs, so the bootstrap draws
whole seeds, each with all its episodes. (To draw episodes again within a seed counts their noise
twice, it is in the seeds' means already: Davison and Hinkley, Bootstrap Methods, 1997, section
3.8.)

The percentile bootstrap is too narrow with few seeds: at five it covers the truth in 84% of cases
instead of 95%, and its bias-corrected form (BCa) no better. Two factors on the deviations from the
estimate mend that: sqrt(n / (n - 1)), because resampling n values understates their spread, and
t / z, because that spread is itself estimated. Both vanish as n grows.

No bootstrap sees what no seed showed: where one training in ten fails, five seeds miss that 59% of
the time, and then they all agree. So successes (0 or 1) get at least a Wilson interval, of as many
observations as they are worth. Episodes of one seed resemble each other: n seeds of E episodes with
an intraclass correlation rho are worth n E / (1 + (E - 1) rho) (the design effect: Kish, Survey
Sampling, 1965). Seeds that agree cannot tell rho, so it is the mean of (2 s - 1)^2 over the seeds'
rates s, which it would be with a mirrored seed of rate 1 - s beside each: 1 where each seed is all
or nothing, and the interval is that of n outcomes; near 0 where each wins half of its episodes.

The promise holds for normal scores and for seeds that are all or nothing (at least 0.92 with five).
It does not where good seeds win only some of their episodes and rare ones none: where good seeds
win 60% and one in five fails, five seeds cover the truth in 67% of cases. And numbers other than
successes have no least width at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, hypot, isfinite, log10
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from .._validate import one_of, positive_int

Statistic = str | Callable[..., Any]
_STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "iqm": lambda values, axis: stats.trim_mean(values, 0.25, axis=axis),
}
_BLOCK = 4_000_000  # numbers drawn at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """An estimate between the ends of its interval; ValueError if it is not, or not finite."""

    estimate: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.low <= self.estimate <= self.high and isfinite(self.high - self.low)):
            ends = f"{self.low}, {self.estimate}, {self.high}"
            raise ValueError(f"an interval needs finite low <= estimate <= high, not {ends}.")

    def __str__(self) -> str:
        size, width = max(abs(self.low), abs(self.high)), self.high - self.low
        digits = 2 if size < 10 else 1 if size < 100 else 0
        if width > 1e-9 * size:  # enough digits to tell the ends apart
            digits = min(max(digits, -floor(log10(width))), 9)
        style = f"z,.{digits}f"  # z: no minus before a zero
        return f"{self.estimate:{style}} [{self.low:{style}}, {self.high:{style}}]"


def numbers(values: Any, what: str, ndims: Sequence[int], finite: bool = True) -> np.ndarray:
    """`values` (nested lists, numpy, a torch tensor on any device) as a float array.

    Raises:
        ValueError: one line: empty, ragged, not numbers, wrong number of axes, not finite.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be numbers in rows of equal length.") from None
    if array.size == 0:
        raise ValueError(f"{what} must not be empty.")
    if array.ndim not in ndims:
        axes = " or ".join(map(str, ndims))
        raise ValueError(f"{what} must have {axes} axes, not shape {list(array.shape)}.")
    if finite and not np.isfinite(array).all():
        bad = (~np.isfinite(array)).sum()
        raise ValueError(f"{what} must be finite, but {bad} of {array.size} are not.")
    return array


class _Arm(NamedTuple):
    scores: np.ndarray  # [seeds]
    below: float  # the interval reaches at least this far below the mean
    above: float  # and this far above
    is_rate: bool


def _arm(values: Any, level: float, statistic: Statistic) -> _Arm:
    array = numbers(values, "values", (1, 2))
    n = len(array)
    if n < 2:
        raise ValueError("an interval over seeds needs at least 2: one says nothing of the others.")
    array = array.reshape(n, -1)
    scores = array.mean(axis=1)
    # What is known of means of rates is not known of any function of them.
    is_rate = not callable(statistic) and not ((array < 0) | (array > 1)).any()
    is_success = is_rate and ((array == 0) | (array == 1)).all()
    below, above = _least(scores, array.shape[1], level) if is_success else (0.0, 0.0)
    return _Arm(scores, below, above, is_rate)


def _least(rates: np.ndarray, episodes: int, level: float) -> tuple[float, float]:
    """How far Wilson's interval reaches below and above the mean of the seeds' rates [seeds]."""
    rho, p = np.mean((2 * rates - 1) ** 2), rates.mean()
    worth = len(rates) * episodes / (1 + (episodes - 1) * rho)
    z = stats.norm.ppf((1 + level) / 2)
    center = (p + z**2 / (2 * worth)) / (1 + z**2 / worth)
    half = z * np.sqrt(p * (1 - p) / worth + (z / (2 * worth)) ** 2) / (1 + z**2 / worth)
    return float(p - center + half), float(center + half - p)


class _Spread(NamedTuple):
    """The bootstrap of one set of scores."""

    estimate: float
    deviations: np.ndarray  # [resamples] from the estimate, widened to an unbiased variance
    seeds: int


def _spread(scores: np.ndarray, statistic: Statistic, resamples: int, rng: Any) -> _Spread:
    n, function = len(scores), statistic if callable(statistic) else _STATISTICS[statistic]
    estimate = float(function(scores, axis=-1))
    block = max(1, _BLOCK // n)
    draws = [
        function(scores[rng.integers(n, size=(min(block, resamples - done), n))], axis=-1)
        for done in range(0, resamples, block)
    ]
    return _Spread(estimate, (np.concatenate(draws) - estimate) * np.sqrt(n / (n - 1)), n)


def _interval(arms: Sequence[_Arm], spreads: Sequence[_Spread], level: float) -> Interval:
    """Of one arm, or of the first minus the second; two spreads are of two independent arms."""
    signs = (1, -1)[: len(spreads)]
    estimate = sum(s * spread.estimate for s, spread in zip(signs, spreads, strict=True))
    deviations = sum(s * spread.deviations for s, spread in zip(signs, spreads, strict=True))
    variances = np.array([spread.deviations.var() for spread in spreads])
    freedoms = np.array([spread.seeds - 1 for spread in spreads])
    total = variances.sum()  # Welch's degrees of freedom
    freedom = total**2 / (variances**2 / freedoms).sum() if total > 0 else freedoms.min()
    tail = (1 - level) / 2
    widen = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    low, high = widen * np.quantile(deviations, (tail, 1 - tail))
    # The least widths of two arms combine as their squares: Newcombe (1998) for a difference.
    below = hypot(arms[0].below, *(arm.above for arm in arms[1:]))
    above = hypot(arms[0].above, *(arm.below for arm in arms[1:]))
    low, high = estimate + min(low, -below), estimate + max(high, above)
    if all(arm.is_rate for arm in arms):
        low, high = max(low, 1.0 - len(arms)), min(high, 1.0)
    # A rate of exactly 0 or 1 can lie outside its Wilson end by a rounding error.
    return Interval(float(estimate), float(min(low, estimate)), float(max(high, estimate)))


def _check(statistic: Statistic, level: float, resamples: int) -> None:
    if not callable(statistic):
        one_of(statistic, _STATISTICS, "statistic")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level!r}.")
    positive_int(resamples, "resamples", least=100)


def bootstrap(
    values: Any,
    statistic: Statistic = "mean",
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval over training seeds; see the top of this module for the method.

    Args:
        values: [seeds] or [seeds, episodes]. Give successes as episodes (0 or 1), so that the
            interval knows that they are; other equal numbers have an interval of width zero.
        statistic: of the seeds' means over episodes: "mean", "iqm" (interquartile mean, Agarwal et
            al. 2021, arXiv 2108.13264) or a function of ([..., seeds], axis=-1) as `numpy.median`,
            whose interval is neither cut nor widened for successes.
        level: probability that the interval covers the truth.
        resamples, seed: number of bootstrap samples and their random seed.

    Returns:
        The interval, cut to [0, 1] where every value lies in [0, 1].

    Raises:
        ValueError: empty, ragged or not finite values, fewer than two seeds, unknown statistic.
    """
    _check(statistic, level, resamples)
    arm, rng = _arm(values, level, statistic), np.random.default_rng(seed)
    return _interval([arm], [_spread(arm.scores, statistic, resamples, rng)], level)


def difference(
    a: Any,
    b: Any,
    statistic: Statistic = "mean",
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
    *,
    paired: bool,
) -> Interval:
    """Interval of the statistic of a minus that of b; arguments as `bootstrap`.

    Args:
        paired: whether seed i of both arms belongs together (same seed, same data, same starts).
            The difference is then taken for each seed first, and what both share drops out of the
            bootstrap. The least width of successes stays that of two independent arms: it supposes
            that arms which share seeds do not fail in opposite ways.
            Where nothing is shared, False: Welch's interval of two independent arms.

    Raises:
        ValueError: as `bootstrap`, or paired arms of different numbers of seeds.
    """
    _check(statistic, level, resamples)
    arms = [_arm(values, level, statistic) for values in (a, b)]
    rng = np.random.default_rng(seed)
    if not paired:
        spreads = [_spread(arm.scores, statistic, resamples, rng) for arm in arms]
        return _interval(arms, spreads, level)
    first, second = (arm.scores for arm in arms)
    if len(first) != len(second):
        raise ValueError(f"paired arms need the same seeds, not {len(first)} and {len(second)}.")
    return _interval(arms, [_spread(first - second, statistic, resamples, rng)], level)


def band(values: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high end over seeds at each of T points: [seeds, T] -> three [T].

    Student's t at each point, which for scores that differ covers as `bootstrap` does; where all
    seeds agree it has no width, and `bootstrap` of successes has. One seed has no
    band (low = high = mean); a NaN leaves a gap. Cut to [0, 1] where every value lies in [0, 1].
    """
    array = numbers(values, "values", (2,), finite=False)
    n, mean = len(array), array.mean(axis=0)
    half = np.zeros_like(mean)
    if n > 1:
        half = stats.t.ppf((1 + level) / 2, n - 1) * array.std(axis=0, ddof=1) / np.sqrt(n)
    low, high = mean - half, mean + half
    if not ((array < 0) | (array > 1)).any():
        low, high = np.maximum(low, 0), np.minimum(high, 1)
    return mean, low, high
