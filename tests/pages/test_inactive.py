"""The page on inactive neurons: tables and figures hold the numbers, and words follow the intervals."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as student

from rfviz import stats
from rfviz.kernels.noise import VARIANTS, Disturbances, Effect, NoiseDose, NoiseEffect
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silent import Silence
from rfviz.lab import results
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import inactive as page
from rfviz.pages.inactive import Shown
from rfviz.stats import NOTHING, Interval


def shown(seeds: tuple[int, ...] = (0,), **planted: Any) -> Shown:
    return Shown(seeds, **{field: planted.get(field, {}) for field in Shown._fields[1:-1]})


def responses(*rates: float) -> LayerResponses:
    count, rate = len(rates), torch.tensor(rates, dtype=torch.float64)
    zeros = torch.zeros(count, 1)
    return LayerResponses(
        ReceptiveField(11, 4, -5), 1, 1000, zeros, zeros.long(), torch.zeros(count, 1, 2).long(), (1000 * rate).long(),
        rate, rate, torch.zeros(count, 23).long(),
    )  # fmt: skip


def lines(ax: Any) -> list[np.ndarray]:
    return [line.get_ydata() for line in ax.get_lines()]


# -- how often channels fire, and why not ------------------------------------------------------------------------------


def silence(*rates: float, shift: float = -1.0) -> Silence:
    found = torch.tensor(rates, dtype=torch.float64)
    highest = torch.where(found > 0, 1.0, -0.5).double()
    return Silence(found, highest, torch.full_like(found, shift), torch.tensor([3.0, -0.1] * 9)[: len(found)].double())


def test_firing_rates_are_sorted_and_crossed_for_any_networks_and_seeds() -> None:
    pooled = {
        "resnet18": [responses(0.0, 0.5, 0.2), responses(0.1, 0.3, 0.0)],
        "plainnet18": [responses(0.4, 0.6, 0.5)],
    }
    (ax,) = page.firing_rates(shown(pooled=pooled)).axes
    assert lines(ax)[0].tolist() == pytest.approx([50, 20, 0])
    assert [line.get_marker() for line in ax.get_lines()] == ["o", "x", "None", "x", "s"]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["ResNet18", "ResNet18: never fires", "PlainNet18"]


def test_kinds_are_counted() -> None:
    found = shown(
        (0,),
        silences={"resnet34": [silence(0.5, 0.0, 0.001, 0.0)], "plainnet34": [silence(0.5, 0.2)]},
        driven={"resnet34": [torch.tensor([True, True, False, False])], "plainnet34": [torch.tensor([True, False])]},
    )
    table = page.kinds_table(found)
    assert table.index.tolist() == ["ResNet34", "PlainNet34"]
    # neither of the two silent ones is reachable, but maximization leaves [0, 1]
    assert table.loc["ResNet34"].tolist() == [4, 1, 1, 2, 0, 0, 1, "0.00 %"]
    said = page.kinds_answer(found).data
    assert "ResNet34 has 2 silent channels: 2 by the shift, none by the filter" in said
    assert "from 0 to 1 makes none of them fire; activation maximization, which may leave that range, 1." in said
    assert "PlainNet34 has no silent channel to explain: its least active one fires at 20.00 %" in said


def test_replicas_are_told_apart_by_seed() -> None:
    found = shown(
        (3, 4),
        silences={"resnet50": [silence(0.5, 0.2), silence(0.0, 0.2, shift=-0.5)]},
        driven={"resnet50": [torch.tensor([True, False])] * 2},
        effects={"resnet50": [experiment(), experiment((1,))]},
    )
    table = page.kinds_table(found)
    assert table.index.tolist() == ["ResNet50, seed 3", "ResNet50, seed 4"]
    assert table.loc["ResNet50, seed 4"].tolist() == [2, 1, 0, 0, 1, 1, 1, "0.00 %"]  # by the filter
    assert "seed 4 has one silent channel: none by the shift, 1 by the filter" in page.kinds_answer(found).data
    assert page.counted(found).data == (
        "ResNet50, seed 3 has no inactive channel of 64 on 100 evaluation images. "
        "ResNet50, seed 4 has one inactive channel of 64 on 100 evaluation images: 1."
    )
    alone = shown((4,), effects={"resnet50": [experiment((1, 7))]})
    one, seven = (f'<a href="explorer.html#resnet50/maxpool/{channel}">{channel}</a>' for channel in (1, 7))
    assert page.counted(alone).data.endswith(f" images: {one}, {seven}.")
    assert page.counted(alone._replace(explored=None)).data.endswith(" images: 1, 7.")


def test_room_to_fire_sorts_by_the_highest_value_and_crosses_silent_channels() -> None:
    found = silence(0.5, 0.0, 0.2)
    figure = page.room_to_fire(shown(silences={"resnet34": [found]}))
    reach, highest, crosses, shift, _ = lines(figure.axes[0])
    assert highest.tolist() == [1, 1]
    assert crosses.tolist() == [-0.5]
    assert sorted(reach.tolist()) == pytest.approx(sorted(found.reach.tolist()))
    assert shift.tolist() == [-1, -1, -1]
    linked = [link.address[-1] for link in figure.links()]
    assert linked == [str(channel) for channel in found.highest.argsort(descending=True).tolist()]


# -- since when --------------------------------------------------------------------------------------------------------

HISTORY = [
    {"epoch": 1, "firing_rate": [0.5, 0.0, 0.2, 0.0]},
    {"epoch": 2, "firing_rate": [0.5, 0.1, 0.0, 0.0]},
    {"epoch": 3, "firing_rate": [0.5, 0.2, 0.0, 0.0]},
]


def test_when_channels_fell_silent() -> None:
    assert page.falling_silent(HISTORY) == {2: 2, 3: 1}
    assert page.falling_silent([{"epoch": 1}]) == {}
    assert page.falling_silent([{"epoch": 1}, *HISTORY[1:]]) == {2: 2, 3: 2}
    said = page.falling_answer(shown(histories={"resnet34": HISTORY, "plainnet34": []})).data
    assert "2 channels fell silent for good, in epochs 1 to 2 of 3; 1 other was silent at the end of an epoch" in said
    assert "Of the training of PlainNet34, it is not known" in said
    awake = {"resnet18": [{"epoch": 1, "firing_rate": [0.5, 0.4]}]}
    assert "In ResNet18, no channel is silent at the end of training, and none was" in (
        page.falling_answer(shown(histories=awake)).data
    )


def test_history_marks_channels_that_end_silent() -> None:
    figure = page.firing_history(shown(histories={"resnet34": HISTORY, "plainnet34": []}))
    drawn = figure.axes[0].get_lines()
    assert [line.get_linestyle() for line in drawn] == ["-", "-", "--", "--"]
    assert drawn[1].get_ydata().tolist() == pytest.approx([0, 10, 20])
    assert len(figure.links()) == 4
    assert [text.get_text() for text in figure.axes[1].texts] == ["not recorded"]


# -- Table 1 -----------------------------------------------------------------------------------------------------------


def effect(*losses: float, reach: float = 0.05) -> Effect:
    """Return what noise does with each noise seed; the mean over them has an interval over images."""
    values = torch.tensor(losses, dtype=torch.float64)
    loss, top1 = (Interval(each, each - reach, each + reach, 100, "images")
                  for each in (values.mean().item(), -values.mean().item() / 10))  # fmt: skip
    return Effect((1,), values, -values / 10, loss, top1)


def experiment(inactive: tuple[int, ...] = (), /, channels: int = 64, **effects: Effect) -> NoiseEffect:
    return NoiseEffect(inactive, channels, 100, 1.0, 0.5, effects)


CONTROLS = {"least_active": effect(0.1, 0.2), "random_active": effect(0.3, 0.5)}
NONE = experiment(**CONTROLS)


def having(count: int, *losses: float, reach: float = 0.05) -> NoiseEffect:
    """Return an experiment in which noise in so many inactive channels changes the loss by so much."""
    found = {"inactive": effect(*losses, reach=reach), "random_inactive": effect(0.1, 0.3, reach=0.001)}
    return experiment(tuple(range(count)), **found, **CONTROLS)


def test_noise_of_one_network_has_intervals_over_images() -> None:
    found = [having(2, 1.0, 2.0, 3.0)]
    assert page.noise_change(found, "inactive") == found[0].effects["inactive"].loss_interval
    assert page.noise_change(found, "inactive") == pytest.approx(Interval(2.0, 1.95, 2.05, 100, "images"))
    assert page.noise_change(found, "inactive", "top1")[:3] == pytest.approx((-0.2, -0.25, -0.15))
    for of in ("loss", "top1"):
        assert math.isnan(page.noise_change([NONE], "inactive", of).value)


def test_every_cell_of_table_1() -> None:
    """Of one network: intervals over images; dashes where nothing is inactive, or not in the paper."""
    found = {"resnet34": [having(2, 1.0, 2.0, 3.0)], "plainnet34": [NONE], "resnet18": [NONE]}
    table = page.table1(found).reset_index()
    assert table["network"].tolist() == ["ResNet34"] * 4 + ["PlainNet34"] * 4 + ["ResNet18"] * 4
    assert table["inactive"].tolist() == (
        ["2 of 64 (paper: 13 of 64)"] * 4 + ["0 of 64 (paper: 2 of 64)"] * 4 + ["0 of 64"] * 4
    )
    assert table["noise in"].tolist() == [
        "all inactive: ΔL", "one inactive, drawn per 256 images: ΔL_rnd", "the 13 least active",
        "13 random active (control)",
    ] * 3  # fmt: skip
    controls = ["+0.15 (+0.1 to +0.2)", "+0.4 (+0.35 to +0.45)"]
    assert table["ΔL (nats)"].tolist() == [
        "+2 (+1.95 to +2.05)", "+0.2 (+0.199 to +0.201)", *controls, *["–", "–", *controls] * 2,
    ]  # fmt: skip
    assert table["ΔL in the paper"].tolist() == [
        "1.26962", "0.024056", "–", "–", "-1.66893 · 10⁻⁶", "-8.34465 · 10⁻⁷", *["–"] * 6,
    ]  # fmt: skip
    assert table["Δ top-1 (points)"].tolist()[0] == "-20 (-25 to -15)"
    assert table["Δ top-1 (points)"].tolist()[4:] == ["–", "–", "-1.5 (-6.5 to +3.5)", "-4 (-9 to +1)"] * 2
    most = [experiment(tuple(range(60)), **CONTROLS), NONE]  # only four are left to draw from in the first
    assert [row for *_, row in page.table1({"resnet34": most}).index][3] == "8.5 random active (control)"


REPLICAS = {"resnet34": [having(3, 1.0, 1.2), having(1, 3.0, 3.2), NONE], "plainnet34": [NONE] * 3}


def test_several_networks_give_intervals_over_them() -> None:
    # over 1.1 and 3.1, the means of the two networks that have inactive channels
    low, high = student.t.interval(0.95, 1, 2.1, math.sqrt(2) / math.sqrt(2))
    replicas = REPLICAS["resnet34"]
    assert page.noise_change(replicas, "inactive") == pytest.approx(Interval(2.1, low, high, 2, "seeds"))
    assert page.noise_change(replicas, "inactive", "top1")[:3] == pytest.approx((-0.21, -high / 10, -low / 10))
    least = page.noise_change(replicas, "least_active")  # the same in all three
    assert least.value == pytest.approx(0.15) and math.isnan(least.low) and least.n == 3
    text = page.table1(REPLICAS).reset_index()
    assert text["inactive"][[0, 4]].tolist() == [
        "1.33 (0 to 3, 3 networks) of 64 (paper: 13 of 64)", "0 (0 to 0, 3 networks) of 64 (paper: 2 of 64)"
    ]  # fmt: skip
    some = [row.partition(" [")[2] for row in text["noise in"]]
    assert some == ["2 of 3 networks]"] * 2 + [""] * 6
    assert text["ΔL (nats)"][[0, 4]].tolist() == [f"+2.1 ({low:+.3g} to {high:+.3g})", "–"]


def test_what_the_intervals_are_over_is_told() -> None:
    assert page.spread_note(REPLICAS) == "Means over 2 noise seeds, with 95 % intervals over 3 trained networks"
    assert page.spread_note({"resnet34": [NONE]}) == "Means over 2 noise seeds, with 95 % intervals over 100 images"
    crops = effect(0.1)
    crops = dataclasses.replace(crops, loss_interval=crops.loss_interval._replace(n=1234, of="photographs"))
    one = {"plainnet34": [experiment(least_active=crops)]}
    assert page.spread_note(one) == "Means over 1 noise seed, with 95 % intervals over 1,234 photographs"


def test_one_network_of_several_has_no_spread() -> None:
    table = page.table1({"resnet34": [having(1, 1.0, 1.2), NONE]}).reset_index()
    assert table["noise in"][0].endswith("[1 of 2 networks]")
    assert table["ΔL (nats)"].tolist() == ["+1.1", "+0.2", "+0.15", "+0.4"]


def test_without_inactive_channels_there_is_nothing_to_compare() -> None:
    said = page.noise_answer(REPLICAS | {"resnet34": [NONE] * 3}).data
    assert "No network of this run has an inactive channel" in said
    assert "It cannot be told whether ResNet34 has more inactive channels than PlainNet34, by 5 points " in said


@pytest.mark.parametrize(
    ("resnet", "plain", "words"),
    [
        (13, 2, "As in the paper, ResNet34 has more inactive channels than PlainNet34, by 5 points at least: "),
        (1, 0, "It cannot be told whether ResNet34 has more inactive channels than PlainNet34, by 5 points "),
        (2, 13, "Unlike in the paper, ResNet34 does not have more inactive channels than PlainNet34, by "),
    ],
)
def test_networks_are_compared_by_the_interval(resnet: int, plain: int, words: str) -> None:
    effects = {
        "resnet34": [having(resnet + more, 1.0, 1.1) for more in range(3)],
        "plainnet34": [having(plain, 1.0, 1.1) if plain else NONE] * 3,
    }
    assert words in page.noise_answer(effects).data
    turned = dict(reversed(effects.items()))  # which of them is the subject says nothing about the paper
    assert words in page.noise_answer(turned).data


def test_a_single_training_of_each_compares_nothing() -> None:
    said = page.noise_answer({"resnet34": [having(13, 1.0, 1.1)], "plainnet34": [having(2, 1.0, 1.1)]}).data
    assert "It cannot be told whether ResNet34 has more inactive channels than PlainNet34" in said
    assert "(One training of each network: a comparison of networks takes 3.)" in said


def test_a_lone_network_is_not_compared() -> None:
    for effects in ({"resnet34": [having(2, 1.0, 1.1)]}, {"resnet34": [having(2, 1.0, 1.1)], "resnet18": [NONE]}):
        assert "There is no network without skips to compare with." in page.noise_answer(effects).data
    assert "There is no network with skips" in page.noise_answer({"plainnet34": [having(2, 1.0, 1.1)]}).data


def test_noise_is_judged_by_the_interval_over_images() -> None:
    effects = {
        "resnet34": [having(2, 1.0, 1.1)],
        "plainnet34": [having(1, -1.0, -1.1)],
        "resnet18": [having(1, 1.0, 1.1, reach=1.2)],  # noise seeds agree, images do not
        "plainnet18": [NONE],
    }
    said = page.noise_answer(effects).data
    over = "+1.05 (+1 to +1.1, n = 100 images)."
    assert f"In ResNet34, noise in the 2 inactive channels raises the loss: ΔL, in nats, is {over}" in said
    assert "In PlainNet34, noise in the one inactive channel lowers the loss: ΔL, in nats, is -1.05 (-1.1 to -1" in said
    assert "In ResNet18, it cannot be told whether noise in the one inactive channel raises the loss" in said
    assert "PlainNet18 has no inactive channel in this run" in said


def test_one_noise_seed_is_enough_for_a_verdict() -> None:
    """What varies is the images, not the noise."""
    found = {"resnet34": [having(1, 1.0)], "plainnet34": [NONE]}
    assert page.table1(found)["ΔL (nats)"].iloc[0] == "+1 (+0.95 to +1.05)"
    assert "noise in the one inactive channel raises the loss: ΔL, in nats, is +1 (" in page.noise_answer(found).data


def test_several_networks_are_judged_by_the_interval_over_them() -> None:
    said = page.noise_answer(REPLICAS).data
    # 1.1 and 3.1: the 95 % interval of the mean of two, 2.1 ± 12.7, holds 0
    assert (
        "it cannot be told whether noise in the inactive channels raises the loss: ΔL, in nats, is +2.1 (-10.6" in said
    )
    assert "; networks that have any: 2 of 3." in said
    assert "PlainNet34 never has an inactive channel" in said
    sure = [having(count, loss, loss) for count, loss in ((12, 1.0), (13, 1.1), (14, 1.2))]
    said = page.noise_answer({"resnet34": sure, "plainnet34": [NONE] * 3}).data
    assert "As in the paper, ResNet34 has more" in said
    assert "n = 3 seeds" in said
    assert (
        "raises the loss: ΔL, in nats, is +1.1 (+0.852 to +1.35, n = 3 seeds); networks that have any: 3 of 3" in said
    )
    one = page.noise_answer({"resnet34": [having(1, 1.0, 1.1), NONE], "plainnet34": [NONE] * 2}).data
    assert "it cannot be told whether noise in the inactive channels raises the loss" in one  # one network: no interval


RESNET, PLAIN, SHORT = (NETWORKS[name] for name in ("resnet34", "plainnet34", "resnet34-short"))


def test_networks_differ_in_the_share_of_inactive_channels() -> None:
    """By what drives the layer and by noise experiments alike."""
    silent = {"plainnet34": (0, 0), "resnet34": (1, 2), "resnet34-short": (3, 3)}
    pooled = {
        name: [responses(*[0.0] * count + [0.5] * (24 - count)) for count in counts] for name, counts in silent.items()
    }
    effects = {name: [experiment(tuple(range(count)), 24) for count in counts] for name, counts in silent.items()}
    found: Any
    for found in (pooled, effects):
        first = {name: replicas[:1] for name, replicas in found.items()}
        within = page.more_inactive(first, RESNET, PLAIN)
        assert within.value == pytest.approx(1 / 24)
        assert (within.sign, within.n, within.of) == (0, 48, "channels")
        over = page.more_inactive(found, PLAIN, RESNET)
        assert over.value == pytest.approx(-1.5 / 24)
        assert (over.n, over.of) == (2, "seeds")
        assert page.more_inactive(first, SHORT, PLAIN).value == pytest.approx(3 / 24)
        for pair in ((RESNET, None), (None, PLAIN)):
            assert math.isnan(page.more_inactive(found, *pair).value)


def test_without_labels_the_output_stands_in_the_place_of_the_loss() -> None:
    found = dataclasses.replace(
        experiment((1, 2), inactive=effect(0.3), least_active=effect(0.4), random_active=effect(0.9)), labelled=False
    )
    table = page.table1({"resnet34": [found]})
    assert list(table.columns) == ["KL divergence (nats)", "ΔL in the paper", "Δ same top-1 choice (points)"]
    assert table.index[0][2] == "all inactive: KL divergence" and "divergence" in page.measured({"resnet34": [found]})
    answer = page.noise_answer({"resnet34": [found]}).data
    assert "moves the output by a divergence of 0.3 (0.25" in answer and "active ones by 0.9" in answer
    assert (
        "loss" not in answer
        and "loss" in page.noise_answer({"resnet34": [experiment((1,), inactive=effect(0.3))]}).data
    )
    assert any(
        "KL divergence in place of" in row[0] for row in page.elsewhere({"this run": {"resnet34": [found]}}).index
    )
    unlabelled = dataclasses.replace(dose(0.5, 0.1), labelled=False)
    drawn = shown(doses={"resnet34": unlabelled}, pooled={"resnet34": [responses(0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]})
    labels = [ax.get_ylabel() for ax in page.noise_doses(drawn).axes]
    assert labels == ["divergence of the output (nats)", "divergence of the output (nats),\nnoise in one channel"]
    for said in (page.dose_answer(drawn).data, page.single_answer(drawn).data):
        assert "loss" not in said and "output" in said
    why = page.why_answer({"resnet34": reasons(UP, UP, UP)._replace(labelled=False)}).data
    assert "misses" not in why and "moves the output by" in why and "loss" not in why


# -- by dose, and one by one -------------------------------------------------------------------------------------------


def dose(tested: float, matched: float, inactive: bool = True, left: tuple[int, ...] = (4, 5)) -> NoiseDose:
    wobble = torch.linspace(-0.01, 0.01, 20, dtype=torch.float64)
    loss = {"tested": (tested + wobble)[None], "matched": (matched - wobble)[None]}
    single = torch.arange(6.0).double()[:, None] + wobble
    loss = {group: torch.cat([-each, each]) for group, each in loss.items()}  # at another dose, the opposite
    return NoiseDose((0, 1), inactive, left, (0.5, 1.0), loss, single, torch.arange(20))


@pytest.mark.parametrize(
    ("strength", "words"),
    [
        ([0.5, 0.6, 0.9, 1.1], "with 0.5 to 0.6 of the mean weight, the matched ones with 0.9 to 1.1: within a"),
        ([2e-5, 0.0, 0.9, 1.1], "with 0 to 2 · 10⁻⁵ of the mean weight, the matched ones with 0.9 to 1.1: not within"),
        ([0.0, 0.4, 0.0, 0.4], "with 0 to 0.4 of the mean weight, the matched ones with 0 to 0.4: not within a factor"),
        ([0.4, 0.4, 0.7, 0.9], "with 0.4 of the mean weight, the matched ones with 0.7 to 0.9: not within"),
    ],
)
def test_matched_channels_are_said_to_match_where_they_do(strength: list[float], words: str) -> None:
    found = dose(1.0, 1.0)
    read = torch.ones(24, dtype=torch.float64)
    read[[*found.tested, *found.matched]] = torch.tensor(strength, dtype=torch.float64)
    assert words in page.match_answer({"resnet34": found}, {"resnet34": {"layer1.0.conv1": read}}).data


@pytest.mark.parametrize(
    ("tested", "matched", "words"),
    [(2.0, 1.0, " more than noise"), (1.0, 1.0, "it cannot be told whether noise"), (1.0, 2.0, " less than noise")],
)
def test_doses_are_compared(tested: float, matched: float, words: str) -> None:
    said = page.dose_answer(shown(doses={"resnet34": dose(tested, matched)})).data
    assert words in said
    assert "2 inactive channels" in said
    assert "fire seldom" not in said
    said = page.dose_answer(shown(doses={"resnet34": dose(tested, matched, inactive=False)})).data
    assert "2 least active channels" in said
    assert "No channel of it is inactive; those that fire seldom are another matter" in said
    said = page.dose_answer(shown(doses={"plainnet34": dose(tested, matched, left=(4,))})).data
    assert "too few active channels are left" in said


def test_single_channels_are_ranked() -> None:
    rates = (0.0, 0.18, 0.36, 0.54, 0.72, 0.9)
    said = page.single_answer(shown(doses={"resnet34": dose(1, 1)}, pooled={"resnet34": [responses(*rates)]})).data
    assert "fire more are the more sensitive" in said
    assert "Inactive minus active channels, one by one, in nats: -3.000" in said  # 0 and 1 against 2 to 5
    falling = shown(doses={"resnet34": dose(1, 1, inactive=False)}, pooled={"resnet34": [responses(*reversed(rates))]})
    assert "fire less are the more sensitive" in page.single_answer(falling).data
    assert "Inactive" not in page.single_answer(falling).data


def test_doses_and_single_channels_are_drawn() -> None:
    pooled = {"resnet34": [responses(0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]}
    figure = page.noise_doses(shown(doses={"resnet34": dose(2, 1)}, pooled=pooled))
    top, bottom = figure.axes
    assert [each[1] for each in lines(top)[:2]] == pytest.approx([1, 2])  # matched, tested
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["2 matched active", "2 inactive"]
    crosses = [line for line in bottom.get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in crosses] == [[0.0]]
    addresses = [link.address for link in figure.links()]
    assert addresses == [f"explorer.html#resnet34/maxpool/{channel}" for channel in range(6)]
    without = page.noise_doses(shown(doses={"resnet34": dose(2, 1, left=())}, pooled=pooled))
    assert len(without.axes[0].get_legend().get_texts()) == 1


# -- why noise in silence matters --------------------------------------------------------------------------------------


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 9, "images")


def reasons(paths: Interval, offset: Interval, cut: Interval, inactive: bool = True) -> page.Why:
    around = interval(0.1, 0.3)
    changes = {variant: {"tested": around, "matched": around, "difference": around} for variant in VARIANTS}
    changes["cut"] = {"tested": cut, "matched": interval(1.0, 1.2), "difference": around}
    return page.Why(inactive, changes, paths, offset)


UP, DOWN, OPEN = interval(0.1, 0.2), interval(-0.2, -0.1), interval(-0.1, 0.1)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            reasons(UP, UP, UP),
            ("more by the skip of", "offset of its mean does less, +", "the network misses it"),
        ),
        (
            reasons(DOWN, DOWN, DOWN),
            ("more by the convolutions of", "a constant offset of its mean does more, +", "better without it"),
        ),
        (
            reasons(OPEN, OPEN, OPEN),
            ("By which path", "less is undecided: +", "cannot be told whether the network misses it"),
        ),
    ],
)
def test_words_on_the_reasons_follow_the_intervals(found: page.Why, said: tuple[str, ...]) -> None:
    answer = page.why_answer({"resnet34": found}).data
    assert all(words in answer for words in said)
    assert "the same cut in matched active channels does so by +1.100" in answer


def test_the_reasons_are_asked_of_silent_channels_only() -> None:
    found = {"resnet34": reasons(UP, UP, UP), "plainnet34": reasons(NOTHING, UP, UP, inactive=False)}
    assert "PlainNet34 has no silent channel to disturb" in page.why_answer(found).data
    table = page.why_table(found)
    assert len(table) == 2 * len(VARIANTS)
    assert table.loc[("ResNet34", VARIANTS["cut"]), "matched active channels"] == "+1.100 (+1.000 to +1.200)"
    assert table.loc[("ResNet34", VARIANTS["cut"]), "least active channels"] == "–"


def test_the_reasons_come_from_the_images_and_over_seeds_from_networks_with_silent_channels(monkeypatch) -> None:
    """Planted changes of the loss, image by image."""

    def dose(inactive: bool) -> SimpleNamespace:
        return SimpleNamespace(
            inactive=inactive,
            labelled=True,
            matched=(1,),
            mean=lambda losses: stats.mean(losses, "images", torch.arange(len(losses))),
        )

    def planted(skip: float) -> Disturbances:
        images = torch.arange(8, dtype=torch.float64) / 100
        tested = dict.fromkeys(VARIANTS, images + 0.5) | {"skip": images + skip, "offset": images / 2}
        return Disturbances(tested, dict.fromkeys(VARIANTS, images), 1.0)

    runs = {
        "a": (dose(inactive=True), planted(1.0)), "b": (dose(inactive=True), planted(2.0)),
        "c": (dose(inactive=False), planted(-9.0)),
    }  # fmt: skip
    monkeypatch.setattr(results, "noise_dose", lambda run, _: runs[run][0])
    monkeypatch.setattr(results, "disturbances", lambda run, _: runs[run][1])
    one = page.why(["a"], "resnet34")
    assert one.inactive and one.paths.value == pytest.approx(0.5) and one.paths.of == "images"
    assert one.changes["noise"]["difference"].value == pytest.approx(0.5)
    assert one.noise_minus_offset.value == pytest.approx(0.5 + 0.035 / 2)
    both = page.why(["a", "b", "c"], "resnet34")
    over_seeds = both.changes["skip"]["tested"]
    assert over_seeds[:3] == pytest.approx(stats.mean([1.035, 2.035])[:3]) and over_seeds[3:] == (2, "seeds")
    assert page.why(["c"], "resnet34").inactive is False


# -- here and elsewhere ------------------------------------------------------------------------------------------------


def test_silent_channels_here_and_elsewhere_stand_beside_the_papers() -> None:
    found = {"here": {"resnet18": [having(2, 1.0, 2.0, 3.0)]}, "there": {"plainnet34": [NONE]}}
    table = page.elsewhere(found)
    assert table.index.tolist() == [
        ("the paper", "ResNet34"), ("the paper", "PlainNet34"), ("here", "ResNet18"), ("there", "PlainNet34"),
    ]  # fmt: skip
    assert table.loc[("the paper", "ResNet34")].tolist() == ["13 of 64", "1.27", "0.0241", "–"]
    assert table.loc[("here", "ResNet18"), "inactive"] == "2 of 64"
    assert table.loc[("here", "ResNet18")].tolist()[1:] == [
        "+2 (+1.95 to +2.05)", "+0.2 (+0.199 to +0.201)", "+0.4 (+0.35 to +0.45)",
    ]  # fmt: skip
    assert table.loc[("there", "PlainNet34")].tolist()[:3] == ["0 of 64", "–", "–"]
    several = page.elsewhere({"here": {"resnet18": [having(2, 1.0, 2.0, 3.0), having(3, 1.0, 2.0, 3.0)]}})
    assert several.loc[("here", "ResNet18"), "inactive"] == "2.5 of 64 (mean of 2 networks)"


def test_a_run_without_silent_channels_says_so_and_points_to_others() -> None:
    said = page.counted(shown(effects={"resnet34": [experiment()]})).data
    assert said.startswith("No network of this run has an inactive channel: the table shows networks that have some.")
