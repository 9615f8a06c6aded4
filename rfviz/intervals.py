"""Numbers with 95 % intervals: Student's t for means, a seeded bootstrap for medians and ranks, exact for shares.

What an interval is over stands beside it. Values that belong together, such as the crops of one photograph, count as
one: their `groups` are what is independent.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

RESAMPLES = 2000

FEWEST = 6
"""Values below which a bootstrap says nothing: its intervals would be too narrow."""

UNDEFINED = 0.05
"""Share of resamples in which a statistic may be undefined; beyond it there is no interval."""

ROUNDING = 1e-9
"""What is nearer to 0 than this is 0."""


class Interval(NamedTuple):
    """A number, its 95 % interval (NaN where there is none), and how many of what it comes from."""

    value: float
    low: float
    high: float
    n: int
    of: str = "channels"

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on that side of 0, else 0 (also where there is no interval)."""
        return int(self.low > ROUNDING) - int(self.high < -ROUNDING)

    def less(self, number: float) -> "Interval":
        """Return the interval of the value less a number."""
        return self._replace(value=self.value - number, low=self.low - number, high=self.high - number)

    def shown(self, form: str = "+.2f") -> str:
        """Return it for people, with the given format of numbers."""
        if math.isnan(self.value):
            return "–"
        n = f"n = {self.n:,} {self.of}"
        if math.isnan(self.low):
            return f"{self.value:{form}} (no interval, {n})"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}}, {n})"


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def known(values: Tensor | Sequence[float]) -> np.ndarray:
    """Return what is a number, float64."""
    numbers = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, float)
    return numbers[np.isfinite(numbers)]


def _bootstrap(resampled: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[float, float]:
    """Return the percentiles of a statistic; `resampled` takes indices `(RESAMPLES, count)`."""
    drawn = resampled(np.random.default_rng(0).integers(0, count, (RESAMPLES, count)))
    if not np.isfinite(drawn).mean() >= 1 - UNDEFINED:
        return math.nan, math.nan
    low, high = np.percentile(drawn[np.isfinite(drawn)], [2.5, 97.5])
    return float(low), float(high)


def mean(values: Tensor | Sequence[float], of: str = "channels", groups: Tensor | None = None) -> Interval:
    """Return the mean of what is a number, with Student's t interval.

    Parameters
    ----------
    values : Tensor or sequence of float, shape (N,)
    of : str
        What is counted.
    groups : Tensor of int64, shape (N,), optional
        Values of one group belong together: the interval is over groups (the linearized ratio of sums).
    """
    numbers = known(values)
    if not len(numbers):
        return NOTHING._replace(of=of)
    middle = float(numbers.mean())
    if groups is None:
        parts, n = numbers - middle, len(numbers)
    else:
        finite = torch.as_tensor(values).isfinite()
        _, place = np.unique(groups[finite].numpy(), return_inverse=True)
        parts = np.bincount(place, numbers - middle).astype(np.float64)
        n = len(parts)
    low = high = math.nan
    spread = math.sqrt((parts**2).sum() * n / (n - 1)) / len(numbers) if n > 1 else 0.0
    if spread > ROUNDING * abs(middle):
        reach = float(stats.t.ppf(0.975, n - 1)) * spread
        low, high = middle - reach, middle + reach
    return Interval(middle, low, high, n, of)


def median(values: Tensor | Sequence[float], of: str = "channels") -> Interval:
    """Return the median of what is a number, with a bootstrap interval."""
    numbers = known(values)
    if not len(numbers):
        return NOTHING._replace(of=of)
    low = high = math.nan
    if len(numbers) >= FEWEST and np.ptp(numbers) > 0:
        low, high = _bootstrap(lambda chosen: np.median(numbers[chosen], axis=1), len(numbers))
    return Interval(float(np.median(numbers)), low, high, len(numbers), of)


def difference(first: Tensor | Sequence[float], second: Tensor | Sequence[float], of: str = "channels") -> Interval:
    """Return the difference of the means of two independent groups, with Welch's t interval; n counts both."""
    a, b = known(first), known(second)
    if not (len(a) and len(b)):
        return NOTHING._replace(of=of)
    gap, low, high = float(a.mean() - b.mean()), math.nan, math.nan
    if min(len(a), len(b)) > 1 and np.ptp(a) + np.ptp(b) > ROUNDING:
        interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        low, high = float(interval.low), float(interval.high)
    return Interval(gap, low, high, len(a) + len(b), of)


def rank_correlation(first: Tensor, second: Tensor, of: str = "channels") -> Interval:
    """Return Spearman's rank correlation of pairs; those with a NaN do not count."""
    both = first.isfinite() & second.isfinite()
    a, b = known(first[both]), known(second[both])
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NOTHING._replace(n=len(a), of=of)

    def correlate(chosen: np.ndarray) -> np.ndarray:
        ranks = [stats.rankdata(each[chosen], axis=-1) for each in (a, b)]
        centred = [each - each.mean(-1, keepdims=True) for each in ranks]
        with np.errstate(invalid="ignore"):
            return (centred[0] * centred[1]).sum(-1) / np.sqrt((centred[0] ** 2).sum(-1) * (centred[1] ** 2).sum(-1))

    low, high = _bootstrap(correlate, len(a)) if len(a) >= FEWEST else (math.nan, math.nan)
    return Interval(float(correlate(np.arange(len(a)))), low, high, len(a), of)


def share(count: int, n: int, of: str = "channels") -> Interval:
    """Return a share with its exact (Clopper-Pearson) interval."""
    if not n:
        return NOTHING._replace(of=of)
    interval = stats.binomtest(count, n).proportion_ci()
    return Interval(count / n, float(interval.low), float(interval.high), n, of)


def over_seeds(found: Sequence[Interval]) -> Interval:
    """Return one interval as it is; of several, one per seed, the mean with Student's t interval over seeds."""
    if len(found) == 1:
        return found[0]
    numbers = known([each.value for each in found])
    if not len(numbers):
        return NOTHING._replace(of="seeds")
    middle, low, high = float(numbers.mean()), math.nan, math.nan
    if len(numbers) > 1 and np.ptp(numbers) > 0:
        low, high = (float(edge) for edge in stats.t.interval(0.95, len(numbers) - 1, middle, stats.sem(numbers)))
    return Interval(middle, low, high, len(numbers), "seeds")


def share_difference(first: tuple[int, int], second: tuple[int, int], of: str = "channels") -> Interval:
    """Return the difference of two independent shares, each given as (count, n), with Newcombe's interval.

    The hybrid score interval, method 10 of Newcombe (1998), which also says something where a count is 0.
    """
    if not (first[1] and second[1]):
        return NOTHING._replace(of=of)
    edges = [stats.binomtest(*each).proportion_ci(method="wilson") for each in (first, second)]
    a, b = (count / n for count, n in (first, second))
    gap = a - b
    low = gap - math.hypot(a - edges[0].low, edges[1].high - b)
    high = gap + math.hypot(edges[0].high - a, b - edges[1].low)
    return Interval(gap, low, high, first[1] + second[1], of)
