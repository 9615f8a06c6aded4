"""Numbers with 95 % intervals, and the one rule by which an interval becomes a verdict.

Student's t for means, a seeded bootstrap for medians and ranks, exact for shares. What an interval is over stands
beside it. Values that belong together, such as the crops of one photograph, count as one: their `groups` are what is
independent.
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


LONGEST = 6
"""Digits of a number that is written with a power of ten."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, form: str) -> str:
    """Return a number for people, with a power of ten as they write it, ``-1.67 · 10⁻⁶``; 110 is none.

    So are numbers of a million and more written with decimals: the loss of a network that has come apart. A form of a
    share with a sign, such as ``"+.0%"``, is for a difference of shares, in points; `unit` says so.
    """
    if unit(form):
        return f"{100 * value:{form.replace('%', 'f')}}"
    if form.endswith("f") and abs(value) >= 10**LONGEST:
        form = form.removesuffix("f").partition(".")[0] + ".3g"
    digits, exponential, power = f"{value:{form}}".partition("e")
    if not exponential:
        return digits
    if 0 < int(power) < LONGEST:
        return f"{float(f'{digits}e{power}'):{'+' * form.startswith('+')}.0f}"
    return f"{digits} · 10{str(int(power)).translate(_SUPERSCRIPTS)}"


def unit(form: str) -> str:
    """Return what stands behind a number in a form: ``" points"`` where it is a difference of shares, else nothing."""
    return " points" if form.startswith("+") and form.endswith("%") else ""


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

    def minus(self, number: float) -> "Interval":
        """Return the interval of the value minus a number, such as what chance would give."""
        return self._replace(value=self.value - number, low=self.low - number, high=self.high - number)

    def times(self, number: float) -> "Interval":
        """Return the interval in another unit."""
        return self._replace(value=self.value * number, low=self.low * number, high=self.high * number)

    def __format__(self, form: str) -> str:
        """Return it for people: ``f"{interval:+.2f}"`` formats the value and both ends, and tells n."""
        form = form or "+.2f"
        if math.isnan(self.value):
            return "–"
        n = f"n = {self.n:,} {self.of if self.n != 1 else self.of.removesuffix('s')}"
        ends = "no interval" if math.isnan(self.low) else self._ends(form)
        return f"{number(self.value, form)}{unit(form)} ({ends}, {n})"

    def brief(self, form: str = "+.2f") -> str:
        """Return it without n, for a table that has a column for it."""
        if math.isnan(self.value):
            return "–"
        return number(self.value, form) + unit(form) + ("" if math.isnan(self.low) else f" ({self._ends(form)})")

    def _ends(self, form: str) -> str:
        return f"{number(self.low, form)} to {number(self.high, form)}"


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def finite(values: Tensor | Sequence[float]) -> np.ndarray:
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

    Of `FEWEST` values or more that are all the same, the interval is that value; of fewer, there is none.

    Parameters
    ----------
    values : Tensor or sequence of float, shape (N,)
    of : str
        What is counted.
    groups : Tensor of int64, shape (N,), optional
        Values of one group belong together: the interval is over groups (the linearized ratio of sums).
    """
    numbers = finite(values)
    if not len(numbers):
        return NOTHING._replace(of=of)
    middle = float(numbers.mean())
    if groups is None:
        parts, n = numbers - middle, len(numbers)
    else:
        there = torch.as_tensor(values).isfinite()
        _, place = np.unique(groups[there].numpy(), return_inverse=True)
        parts = np.bincount(place, numbers - middle).astype(np.float64)
        n = len(parts)
    low = high = math.nan
    spread = math.sqrt((parts**2).sum() * n / (n - 1)) / len(numbers) if n > 1 else 0.0
    if spread > ROUNDING * abs(middle):
        reach = float(stats.t.ppf(0.975, n - 1)) * spread
        low, high = middle - reach, middle + reach
    elif n >= FEWEST:  # all the same, such as scores of 1 in every channel: a test of signs would tell them from 0
        low = high = middle
    return Interval(middle, low, high, n, of)


def median(values: Tensor | Sequence[float], of: str = "channels", groups: Tensor | None = None) -> Interval:
    """Return the median of what is a number, with a bootstrap interval; none of fewer than `FEWEST`.

    Parameters
    ----------
    values : Tensor or sequence of float, shape (N,)
    of : str
        What is counted.
    groups : Tensor of int64, shape (N,), optional
        Values of one group belong together: whole groups are drawn, and n counts them.
    """
    numbers = finite(values)
    if not len(numbers):
        return NOTHING._replace(of=of)
    rows = numbers[:, None]
    if groups is not None:
        of_each = groups[torch.as_tensor(values).isfinite()].numpy()
        members = [numbers[of_each == group] for group in np.unique(of_each)]
        rows = np.full((len(members), max(map(len, members))), np.nan)
        for row, group in zip(rows, members, strict=True):
            row[: len(group)] = group
    low = high = math.nan
    if len(rows) >= FEWEST:
        low, high = _bootstrap(lambda chosen: _medians(rows[chosen].reshape(len(chosen), -1)), len(rows))
    return Interval(float(np.median(numbers)), low, high, len(rows), of)


def _medians(values: np.ndarray) -> np.ndarray:
    """Return the median of each row, NaN aside, in a fraction of the time of `numpy.nanmedian`."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = (~np.isnan(values)).sum(axis=1, keepdims=True)
    middle = [np.take_along_axis(ordered, each, axis=1) for each in ((count - 1) // 2, count // 2)]
    return (middle[0] + middle[1])[:, 0] / 2


def difference(first: Tensor | Sequence[float], second: Tensor | Sequence[float], of: str = "channels") -> Interval:
    """Return the difference of the means of two independent groups, with Welch's t interval; n counts both."""
    return difference_of_differences((first, second), of=of)


def difference_of_differences(*pairs: tuple[Tensor | Sequence[float], Tensor | Sequence[float]], of: str) -> Interval:
    """Return the difference of the means of a pair of groups, minus that of another pair if there is one.

    All groups are independent. The t interval has the degrees of freedom of Welch and Satterthwaite; n counts the first
    pair.
    """
    groups = [finite(each) for pair in pairs for each in pair]
    if not all(len(each) for each in groups):
        return NOTHING._replace(of=of)
    means = [float(each.mean()) for each in groups]
    gap, low, high = sum(sign * each for sign, each in zip((1, -1, -1, 1), means, strict=False)), math.nan, math.nan
    spreads = [float(each.var(ddof=1)) / len(each) if len(each) > 1 else math.nan for each in groups]
    if sum(spreads) > ROUNDING**2:  # not where one is NaN
        freedom = sum(spreads) ** 2 / sum(v**2 / (len(g) - 1) for v, g in zip(spreads, groups, strict=True))
        reach = float(stats.t.ppf(0.975, freedom)) * math.sqrt(sum(spreads))
        low, high = gap - reach, gap + reach
    elif all(len(each) >= FEWEST for each in groups):  # each constant, as in `mean`
        low = high = gap
    return Interval(gap, low, high, sum(map(len, groups[:2])), of)


def rank_correlation(first: Tensor, second: Tensor, of: str = "channels") -> Interval:
    """Return Spearman's rank correlation of pairs; those with a NaN do not count."""
    both = first.isfinite() & second.isfinite()
    a, b = finite(first[both]), finite(second[both])
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
    return mean([each.value for each in found], "seeds")


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


AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell"


def judge(measured: Interval, expected: int = 1, least: float = 0.0) -> str:
    """Return what an interval says of a statement that expects a positive (or, with -1, a negative) number.

    It agrees if the whole 95 % interval lies beyond the least effect, disagrees if the whole interval falls short of
    it, and cannot tell if the interval holds the least effect or there is none.

    Parameters
    ----------
    measured : Interval
    expected : {1, -1}
        Sign of the number that the statement expects.
    least : float
        The least effect, in that direction, that the statement is worth; fixed before looking.
    """
    return {1: AGREES, 0: CANNOT_TELL, -1: DISAGREES}[measured.minus(expected * least).sign * expected]


def all_of(verdicts: Sequence[str]) -> str:
    """Return the verdict on a statement that holds if all its parts hold, and fails if one of them fails."""
    return DISAGREES if DISAGREES in verdicts else CANNOT_TELL if CANNOT_TELL in verdicts else AGREES


TRAININGS = 3
"""Trainings of each network that a comparison of networks takes."""


def compare(measured: Interval, trainings: int, least: float = 0.0) -> str:
    """Return what `judge` says of a comparison of networks; of fewer than `TRAININGS` of each, that it cannot tell."""
    return judge(measured, least=least) if trainings >= TRAININGS else CANNOT_TELL


def few_trainings(count: int) -> str:
    """Say that there are too few trainings to compare networks."""
    trained = "one training" if count == 1 else f"{count} trainings"
    return f"{trained} of each network: a comparison of networks takes {TRAININGS}"


def because(measured: Interval, null: str = "0") -> str:
    """Say why the verdict on an interval, taken against a null, is what it is."""
    if math.isnan(measured.low):
        return "there is no interval"
    where = {1: "the whole interval lies above", 0: "the interval holds", -1: "the whole interval lies below"}
    return f"{where[measured.sign]} {null}"
