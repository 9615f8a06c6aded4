"""Intervals against theory, and where they say nothing."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfviz import stats
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, Interval, all_of, because, judge

NORMAL = torch.from_numpy(np.random.default_rng(1).normal(3, 2, 400))


def test_mean_is_as_students_t_has_it() -> None:
    found = stats.mean(NORMAL)
    low, high = scipy.stats.t.interval(0.95, 399, NORMAL.mean(), scipy.stats.sem(NORMAL.numpy()))
    assert found.value == pytest.approx(NORMAL.mean().item())
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.n, found.of) == (400, "channels")


def test_median_lies_within_its_interval_and_nan_does_not_count() -> None:
    found = stats.median([*NORMAL.tolist(), math.nan, math.inf], "images")
    assert found.low < found.value == pytest.approx(NORMAL.median().item(), abs=0.02)
    assert found.value < found.high
    assert (found.n, found.of) == (400, "images")


def test_the_same_numbers_give_the_same_interval() -> None:
    assert stats.mean(NORMAL) == stats.mean(NORMAL.clone())


def test_values_of_one_group_count_as_one() -> None:
    groups = torch.arange(400) // 50
    together = stats.mean(NORMAL, "photographs", groups)
    low, high = scipy.stats.t.interval(0.95, 7, NORMAL.mean(), scipy.stats.sem(NORMAL.view(8, 50).mean(1).numpy()))
    assert (together.low, together.high) == pytest.approx((low, high))
    assert (together.n, together.of) == (8, "photographs")
    copies = NORMAL[:8].repeat_interleave(50)  # copies say no more than one of each
    assert stats.mean(copies, "photographs", groups)[:4] == pytest.approx(stats.mean(NORMAL[:8])[:4])
    assert stats.mean(NORMAL, groups=torch.arange(400))[:4] == pytest.approx(stats.mean(NORMAL)[:4])
    holes = torch.where(torch.arange(400) % 7 == 0, torch.nan, NORMAL)
    assert stats.mean(holes, "photographs", groups).n == 8


@pytest.mark.parametrize("n", [3, 5, 12])
def test_few_values_are_covered_as_often_as_claimed(n: int) -> None:
    generator = np.random.default_rng(n)
    for measure in (stats.mean, lambda values: stats.difference(values, generator.normal(0, 3, 19))):
        wrong = sum(measure(generator.normal(0, 1, n)).sign != 0 for _ in range(1000))
        assert wrong <= 70  # of 50 expected, and a standard deviation of 7


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0, 2.0], [math.nan]])
@pytest.mark.parametrize("statistic", [stats.mean, stats.median])
def test_too_little_gives_no_interval(statistic: Callable, values: list[float]) -> None:
    found = statistic(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.sign == 0
    assert judge(found) == CANNOT_TELL
    assert because(found) == "there is no interval"
    assert math.isnan(found.value) == (len(stats.finite(values)) == 0)


def test_difference_of_two_groups() -> None:
    found = stats.difference(NORMAL + 1, NORMAL[:200])
    assert found.value == pytest.approx((NORMAL.mean() + 1 - NORMAL[:200].mean()).item())
    spread = math.sqrt(NORMAL.var() / 400 + NORMAL[:200].var() / 200)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.02)
    assert found.n == 600
    assert math.isnan(stats.difference(NORMAL, []).value)
    assert math.isnan(stats.difference(NORMAL, [1.0]).low)
    assert math.isnan(stats.difference([0.0] * 3, [0.1] * 3).low)


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=9),
    st.lists(st.floats(-100, 100), min_size=2, max_size=9),
)
def test_one_pair_is_welchs_interval(first: list[float], second: list[float]) -> None:
    first, second = [0.0, 1.0, *first], [0.0, 2.0, *second, math.nan]
    found = stats.difference_of_differences((first, second), of="stimuli")
    interval = scipy.stats.ttest_ind(first, second[:-1], equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.value == pytest.approx((found.low + found.high) / 2, abs=1e-9)
    assert (found.n, found.of) == (len(first) + len(second) - 1, "stimuli")


def test_of_two_pairs_the_second_is_taken_off() -> None:
    a, b, c, d = (NORMAL[begin::4] + add for begin, add in enumerate((8, 4, 2, 1)))
    found = stats.difference_of_differences((a, b), (c, d), of="images")
    assert found.value == pytest.approx((a.mean() - b.mean() - (c.mean() - d.mean())).item())
    assert found.n == 200  # of the first pair
    turned = stats.difference_of_differences((c, d), (a, b), of="images")
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    constant = stats.difference_of_differences((a, b), ([3.0] * 50, [1.0] * 9), of="images")
    assert constant[:3] == pytest.approx(stats.difference(a, b).minus(2)[:3], rel=1e-2)
    assert math.isnan(stats.difference_of_differences((a, b), (c, [1.0]), of="images").low)
    assert math.isnan(stats.difference_of_differences((a, b), (c, []), of="images").value)


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (24, 5, 24, 5), (40, 40, 6, 60)])
def test_two_pairs_are_covered_as_often_as_claimed(sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(sum(sizes))
    wrong = 0
    for _ in range(2000):
        a, b, c, d = (generator.normal(i, 1 + i, n) for i, n in enumerate(sizes))
        wrong += stats.difference_of_differences((a, b), (c, d), of="channels").sign != 0  # 0 - 1 - (2 - 3)
    assert 65 <= wrong <= 135  # of 100 expected, and a standard deviation of 10


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=12))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    a, b = (torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    found = stats.rank_correlation(a, b)
    if len(a.unique()) == 1 or len(b.unique()) == 1:
        assert math.isnan(found.value)
    else:
        assert found.value == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
        assert not found.low > found.high
        assert len(a) >= stats.FEWEST or math.isnan(found.low)


def test_rank_correlation_leaves_pairs_with_nan_out() -> None:
    a = torch.tensor([1.0, 2.0, 3.0, math.nan, 4.0])
    found = stats.rank_correlation(a, torch.tensor([1.0, 4.0, 9.0, 0.0, math.nan]))
    assert (found.value, found.n) == (pytest.approx(1), 3)


@pytest.mark.parametrize(("count", "n"), [(0, 24), (3, 24), (24, 24)])
def test_share_is_exact(count: int, n: int) -> None:
    found = stats.share(count, n)
    low = scipy.stats.beta.ppf(0.025, count, n - count + 1) if count else 0
    high = scipy.stats.beta.ppf(0.975, count + 1, n - count) if count < n else 1
    assert found[:3] == pytest.approx((count / n, low, high))
    assert math.isnan(stats.share(0, 0).value)


def test_difference_of_shares_as_newcombe_prints_it() -> None:
    # Newcombe (1998), Table II, method 10: 56/70 less 48/80, and 9/10 less 3/10.
    assert stats.share_difference((56, 70), (48, 80))[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert stats.share_difference((9, 10), (3, 10))[:3] == pytest.approx((0.6, 0.1705, 0.8090), abs=1e-4)
    nothing = stats.share_difference((0, 24), (0, 24))
    assert nothing.low < 0 < nothing.high
    assert math.isnan(stats.share_difference((0, 0), (1, 2)).value)


def test_over_seeds() -> None:
    one = Interval(2.0, 1.0, 3.0, 24)
    assert stats.over_seeds([one]) == one
    several = stats.over_seeds([one, one._replace(value=4.0), one._replace(value=6.0)])
    low, high = scipy.stats.t.interval(0.95, 2, 4.0, scipy.stats.sem([2.0, 4.0, 6.0]))
    assert several == pytest.approx((4.0, low, high, 3, "seeds"))
    assert math.isnan(stats.over_seeds([one, one]).low)
    assert math.isnan(stats.over_seeds([stats.NOTHING] * 2).value)
    assert stats.over_seeds([stats.NOTHING, one])[:4] == pytest.approx((2.0, math.nan, math.nan, 1), nan_ok=True)


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(0.1, 2.0, 1), (-2.0, -0.1, -1), (-0.1, 0.1, 0), (0.0, 1.0, 0), (math.nan, math.nan, 0)]
)
def test_a_verdict_takes_the_whole_interval(low: float, high: float, sign: int) -> None:
    found = Interval(0.5, low, high, 9)
    assert found.sign == sign
    assert judge(found) == {1: AGREES, 0: CANNOT_TELL, -1: DISAGREES}[sign]
    assert judge(found, -1) == {-1: AGREES, 0: CANNOT_TELL, 1: DISAGREES}[sign]
    assert found.minus(10).sign == (0 if math.isnan(low) else -1)


@pytest.mark.parametrize(
    ("low", "high", "expected", "least", "verdict"),
    [
        (0.3, 0.9, 1, 0.2, AGREES),
        (0.1, 0.9, 1, 0.2, CANNOT_TELL),
        (0.05, 0.1, 1, 0.2, DISAGREES),  # more than 0 but too little
        (-0.9, -0.3, 1, 0.2, DISAGREES),
        (-0.9, -0.3, -1, 0.2, AGREES),
        (-0.9, -0.1, -1, 0.2, CANNOT_TELL),
        (-0.1, -0.05, -1, 0.2, DISAGREES),
        (0.3, 0.9, -1, 0.2, DISAGREES),
        (math.nan, math.nan, -1, 0.2, CANNOT_TELL),
    ],
)
def test_a_verdict_wants_the_least_effect(low: float, high: float, expected: int, least: float, verdict: str) -> None:
    assert judge(Interval((low + high) / 2, low, high, 9), expected, least) == verdict
    mirrored = Interval(-(low + high) / 2, -high, -low, 9)
    assert judge(mirrored, -expected, least) == verdict


@given(st.lists(st.sampled_from([AGREES, DISAGREES, CANNOT_TELL])))
def test_a_statement_of_parts_is_as_good_as_its_worst(parts: list[str]) -> None:
    ranks = [AGREES, CANNOT_TELL, DISAGREES]
    assert all_of(parts) == ranks[max((ranks.index(part) for part in parts), default=0)]


def test_for_people() -> None:
    assert format(Interval(0.5, 0.25, 0.75, 1200, "images"), "+.1f") == "+0.5 (+0.2 to +0.8, n = 1,200 images)"
    assert format(Interval(0.5, math.nan, math.nan, 2), ".0%") == "50% (no interval, n = 2 channels)"
    assert format(stats.NOTHING) == "–"


def test_rounding_decides_nothing() -> None:
    assert Interval(-4e-18, -6e-18, -2e-18, 20).sign == 0


def test_a_rank_correlation_that_is_mostly_ties_has_no_interval() -> None:
    tied = torch.zeros(20)
    tied[0] = 1.0
    found = stats.rank_correlation(tied, torch.arange(20.0))
    assert math.isfinite(found.value)
    assert math.isnan(found.low)


def test_a_clustered_median_is_over_groups():
    """Values of a group are no independent samples: copies of them change neither the median nor its interval."""
    groups = torch.arange(400) // 40
    plain = stats.median(NORMAL, "stimuli")
    clustered = stats.median(NORMAL, "channels", groups)
    assert clustered.value == plain.value
    assert clustered.n == 10
    twice = stats.median(torch.cat([NORMAL, NORMAL]), "channels", torch.cat([groups, groups]))
    assert twice[:4] == pytest.approx(clustered[:4])
    single = stats.median(NORMAL[:9], groups=torch.arange(9))
    assert single[:3] == stats.median(NORMAL[:9])[:3]
    holes = torch.where(torch.arange(400) % 40 == 0, torch.nan, NORMAL)
    assert stats.median(holes, groups=groups).n == 10


def test_many_equal_values_are_told_from_zero_and_few_are_not():
    assert stats.mean([1.0] * 6)[:3] == (1.0, 1.0, 1.0)
    assert judge(stats.mean([1.0] * 6).minus(0.5)) == AGREES
    assert judge(stats.mean([0.0] * 6)) == CANNOT_TELL
    assert math.isnan(stats.mean([1.0] * 5).low)
    assert stats.median([1.0] * 6)[:3] == (1.0, 1.0, 1.0)
    assert stats.difference([3.0] * 6, [1.0] * 7)[:4] == (2.0, 2.0, 2.0, 13)
    assert math.isnan(stats.difference([3.0] * 6, [1.0] * 5).low)
    assert stats.over_seeds([Interval(1.0, 0.0, 2.0, 9)] * 6) == (1.0, 1.0, 1.0, 6, "seeds")
    assert math.isnan(stats.over_seeds([Interval(1.0, 0.0, 2.0, 9)] * 5).low)


def test_powers_of_ten_are_written_as_people_do():
    assert stats.number(-1.66893e-6, ".6g") == "-1.66893 · 10⁻⁶"
    assert stats.number(3e12, "+.2g") == "+3 · 10¹²" and stats.number(1.23e6, ".2g") == "1.2 · 10⁶"
    assert stats.number(112.0, "+.2g") == "+110" and stats.number(-123456.0, ".2g") == "-120000"
    assert stats.number(-3.07e28, "+.3f") == "-3.07 · 10²⁸" and stats.number(999999.5, ".1f") == "999999.5"
    assert (
        stats.number(0.0241, ".3g") == "0.0241"
        and stats.number(0.5, ".0%") == "50%"
        and stats.number(0.5, "+.0%") == "+50"
    )
    small = Interval(2e-5, -1e-6, 0.3, 4)
    assert small.brief("+.2g") == "+2 · 10⁻⁵ (-1 · 10⁻⁶ to +0.3)"
    assert f"{small:+.2g}" == "+2 · 10⁻⁵ (-1 · 10⁻⁶ to +0.3, n = 4 channels)"
