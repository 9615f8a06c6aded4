"""The page on the series: words follow the numbers, and what is kept says what the prose says."""

import pytest

from rfviz.lab import series
from rfviz.pages.evidence import series as page
from rfviz.pages.evidence.series import Shown
from rfviz.stats import NOTHING


def planted(silent, top1, *, penalized_top1=None) -> Shown:
    """A series in which inactive channels and accuracy are functions of (network, decay, seed)."""
    found = []
    for cell in series.cells():
        accuracy = top1 if penalized_top1 is None or not cell.alive else penalized_top1
        count = 0 if cell.alive else silent(cell.network, cell.decay, cell.seed)
        found.append(
            {
                "network": cell.network, "decay": cell.decay, "alive": cell.alive, "seed": cell.seed,
                "top1": accuracy(cell.network, cell.decay, cell.seed), "inactive": count,
                "firing_rate": [0.0] * count + [0.5] * (24 - count), "command": cell.command,
            }
        )  # fmt: skip
    return Shown(sorted(found, key=lambda each: -each["seed"]), {"command": "rfviz series here", "commit": "abc"})


def level(network: str, decay: float, seed: int) -> float:
    return 0.5 + 0.01 * seed


def only(network: str, more: int):
    """That network loses `more` or so channels from D = 1.5 on, the others one less than half of that."""
    return lambda name, decay, seed: (more + seed if name == network else more // 2) * (decay >= 1.5)


def test_the_answers_tell_when_and_in_which_network() -> None:
    found = planted(only("resnet34", 6), level)
    said = page.when_answer(found).data
    assert "ResNet34 loses channels in every training from D = 1.5 on; the most is 8 of 24" in said
    gap = page.more_silent(found, "resnet34", "plainnet34")
    assert gap.value == pytest.approx(100 * 4 / 24) and (gap.n, gap.of) == (3, "seeds")
    assert page.skips_answer(found).data.count("channels fall silent more often than in") == 2
    fewer = planted(only("plainnet34", 6), level)
    assert "channels do not fall silent more often than in PlainNet34, by 5 points" in page.skips_answer(fewer).data
    same = planted(lambda name, decay, seed: (seed + (name == "resnet34")) % 3, level)
    assert "it cannot be told whether channels fall silent more often" in page.skips_answer(same).data


def test_networks_that_have_not_learnt_are_not_compared() -> None:
    def top1(network: str, decay: float, seed: int) -> float:
        return 0.13 if network == "plainnet34" and decay == 15 else 0.5

    found = planted(lambda name, decay, seed: (24 if decay == 15 else 3) + (name == "resnet34") * (seed - 2), top1)
    assert page.compared(found, "resnet34", "plainnet34") == [3.0, 6.0]
    assert page.compared(found, "resnet34", "resnet34-plain-layer1") == [3.0, 6.0, 15.0]
    assert page.more_silent(found, "resnet34", "plainnet34").value == pytest.approx(-100 / 24)
    assert "at D = 3 and 6 (that of" in page.skips_answer(found).data
    nothing = planted(lambda *_: 0, lambda *_: 0.1)
    assert page.more_silent(nothing, "resnet34", "plainnet34") == NOTHING


def test_a_network_that_never_loses_a_channel_has_no_first_decay() -> None:
    found = planted(lambda name, decay, seed: int(decay >= 15 and seed == 0), level)
    assert page.first_silent(found, "resnet34") is None
    assert "ResNet34 has no decay from which on every training loses a channel; the most is 1" in (
        page.when_answer(found).data
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda seed: -0.10 - 0.01 * seed, "its accuracy falls: -11.0"),
        (lambda seed: 0.10 + 0.01 * seed, "its accuracy rises: +11.0"),
        (lambda seed: 0.1 * (seed - 1), "its accuracy cannot be told to change"),
        (lambda seed: 0.001 * (seed - 1), "its accuracy changes by less than 2 points"),
    ],
)
def test_the_cost_of_firing_follows_the_interval(change, said: str) -> None:
    found = planted(
        only("resnet34", 4), level, penalized_top1=lambda name, decay, seed: level(name, decay, seed) + change(seed)
    )
    assert page.penalty_answer(found).data.count(said) == 3
    assert "no channel of ResNet34 is silent" in page.penalty_answer(found).data


def test_the_figure_has_a_mark_for_every_training_and_the_table_a_number() -> None:
    found = planted(only("resnet34", 6), level)
    left, right = page.silent_by_decay(found).axes
    marks = [line for line in left.get_lines() if line.get_linestyle() == "None" and len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in marks) == len(series.cells())
    assert max(max(line.get_ydata()) for line in marks) == pytest.approx(100 * 8 / 24)
    assert left.get_xscale() == right.get_xscale() == "log"
    table = page.table(found)
    assert table.loc["6", "ResNet34: inactive"] == "6, 7, 8"
    assert table.loc["6", "PlainNet34: top-1 (%)"] == "50, 51, 52"
    assert table.loc["6 (kept alive)", "ResNet34: inactive"] == "0, 0, 0"
    assert f"{len(series.cells())} trainings: ResNet34, ResNet34 without skips in layer1 and PlainNet34" in (
        page.conditions(found).data
    )


def test_what_is_kept_is_the_whole_series() -> None:
    found = page.kept()
    expected = [(cell.network, cell.decay, cell.alive, cell.seed) for cell in series.cells()]
    assert [tuple(each[name] for name in ("network", "decay", "alive", "seed")) for each in found.trainings] == expected
    assert found.made_by["command"].startswith("rfviz series") and found.made_by["commit"]
    for each in found.trainings:
        assert each["inactive"] == each["firing_rate"].count(0.0) == each["inactive_by_epoch"][-1]
