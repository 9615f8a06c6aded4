"""What the page on channel sharing says follows the numbers, on made-up networks that fulfil or break it."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from rfviz import stats
from rfviz.images.data import Evaluation
from rfviz.kernels import responses
from rfviz.kernels.noise import NoiseDose
from rfviz.kernels.pictures import correlations, pairing
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.stream import HandedOn, Written
from rfviz.lab import presets, results
from rfviz.lab.results import Evidence
from rfviz.lab.run import Run
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import sharing
from rfviz.pages.sharing import Parts, Pictures, Shown, Step, own_minus_all
from rfviz.pages.style import roles
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, Interval, judge

CHANNELS, IMAGES = 40, 50
PAIR, STREAM = ("resnet34", "plainnet34"), NETWORKS["resnet34"].stream
MORE = Interval(0.2, 0.1, 0.3, 80)


PARTS = Parts(*(Interval(value, value - 0.05, value + 0.05, 12) for value in (0.4, 0.15, 0.6, 0.5, 0.2, 0.25)))


def around(value: float, *shape: int, seed: int = 0) -> torch.Tensor:
    return value + 0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def evidence(inactive: int, sign: float = 1.0, seed: int = 0, layers: Sequence[str] = STREAM) -> Evidence:
    """A network that fulfils the predictions, or with sign -1 shows the opposite."""
    rates = torch.linspace(0, 0.9, CHANNELS, dtype=torch.float64)
    tested = torch.arange(CHANNELS) < (inactive or 8)
    amount = (1 - sign * rates).exp() + 0.01 * around(0, CHANNELS, seed=seed)
    flat = around(0.5, CHANNELS)
    written = {layer: Written(flat, amount if layer == layers[1] else amount.flip(0), rates) for layer in layers[1:]}
    by_chance = {layer: Written(flat, flat, rates) for layer in layers[1:]}
    dose = NoiseDose(
        tuple(range(inactive or 8)), inactive > 0, tuple(range(20, 20 + (inactive or 8))), (0.5, 1.0),
        {"tested": around(sign, 2, IMAGES, seed=seed), "matched": around(0.1, 2, IMAGES, seed=seed)},
        around(0, CHANNELS, IMAGES), torch.arange(IMAGES),
    )  # fmt: skip
    ablated = {
        layers[0]: torch.zeros(CHANNELS, IMAGES, dtype=torch.float64),
        layers[-1]: around(-sign, CHANNELS, IMAGES, seed=seed),
    }
    ablated[layers[-1]][tested] += 2 * sign
    dose.loss["tested"][0] *= -1  # at another dose, the opposite
    strange = around(0.5, CHANNELS, seed=seed) + 0.4 * sign * tested
    cut = tuple(around(value, IMAGES, seed=seed) for value in (sign, 0.1))
    fires = {layer: rates if layer == layers[0] else 0.5 + rates / 2 for layer in layers}
    return Evidence(rates, tested, strange, cut, dose, ablated, written, by_chance, fires)


def step(keeps: bool) -> Step:
    pictures = torch.rand(12, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    noise = 0.02 * torch.rand(12, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    other, fires = (pictures if keeps else pictures.roll(1, 0)) + noise, torch.ones(12, dtype=torch.bool)
    return Step(pairing(pictures, other), own_minus_all(Pictures(pictures, fires), Pictures(other, fires)))


def shown(
    networks: Sequence[str] = PAIR,
    found: dict[str, list[Evidence]] | None = None,
    keeps: dict[str, bool] | None = None,
    difference: float = 0.3,
    more: Interval = MORE,
) -> Shown:
    run = Run(presets.get("smoke", networks=networks), 0, Path("nowhere"))
    names = [name for name in networks if not NETWORKS[name].bottleneck]
    steps = {
        name: {pair: step((keeps or {}).get(name, True)) for pair in pairwise(("conv1", *NETWORKS[name].stream))}
        for name in names
    }
    profile = {"conv1": 0.5, "layer1.0.relu1": 0.7, "layer1.0": 0.2}
    made = {name: [evidence(12, layers=NETWORKS[name].stream)] for name in names}
    return Shown(
        roles=roles(run.networks), steps=steps,
        parts=dict.fromkeys(names, PARTS),
        keeps=Interval(difference, difference - 0.1, difference + 0.1, 24),
        sparsity=dict.fromkeys(networks, profile),
        read={name: {reader: torch.ones(CHANNELS) for reader in NETWORKS[name].readers} for name in names},
        evidence={**made, **(found or {})}, more_inactive=more,
    )  # fmt: skip


def test_without_labels_no_prediction_on_the_loss_is_decided() -> None:
    made = {
        name: [evidence(12, sign, seed + round(9 * sign)) for seed in range(3)]
        for name, sign in zip(PAIR, (1.0, 0.5), strict=True)
    }
    unlabelled = {
        name: [dataclasses.replace(each, dose=dataclasses.replace(each.dose, labelled=False)) for each in replicas]
        for name, replicas in made.items()
    }
    labelled, divergent = shown(found=made), shown(found=unlabelled)
    before, after = sharing.predictions(labelled), sharing.predictions(divergent)
    changed = [number for number, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]]
    assert changed == [3, 5]
    for number in changed:
        assert before[number - 1].verdict == AGREES
        assert (after[number - 1].verdict, after[number - 1].why) == (CANNOT_TELL, sharing.NO_LABELS)
        assert "loss" in before[number - 1].test and "ivergence" in after[number - 1].test
    assert sharing.ablations(divergent).axes[0].get_ylabel() == "divergence of the output (nats)"
    assert "difference of the divergences of the output" in sharing.ownership_answer(divergent).data


# -- does a channel keep its feature? ----------------------------------------------------------------------------------


def test_neighbouring_layers_are_compared_over_channels_that_fire(resnet: ResidualNet, tiles: Evaluation) -> None:
    network = resnet.network
    found = responses.collect(resnet, tiles, network.stream, 1, strongest=8, borders=True)
    silent = found["layer1.0"].top_values.clone()
    silent[2] = 0
    found["layer1.0"] = dataclasses.replace(found["layer1.0"], top_values=silent)
    compared = sharing.steps(resnet.conv1.weight, found, network)
    assert list(compared) == [
        ("conv1", "maxpool"), ("maxpool", "layer1.0"), ("layer1.0", "layer1.1"), ("layer1.1", "layer1.2"),
    ]  # fmt: skip
    assert [len(each.pairing.same) for each in compared.values()] == [6, 5, 5, 6]
    there = [0, 1, 3, 4, 5]
    expected = pairing(found["maxpool"].strongest_deviation[there], found["layer1.0"].strongest_deviation[there])
    assert torch.equal(compared["maxpool", "layer1.0"].pairing.same, expected.same)
    first = pairing(resnet.conv1.weight.detach(), found["maxpool"].strongest_deviation)
    assert torch.equal(compared["conv1", "maxpool"].pairing.same, first.same)
    gains = torch.stack([each.gain for pair, each in compared.items() if "conv1" not in pair])
    assert gains[:2, 2].isnan().all() and gains.isnan().sum() == 2
    torch.testing.assert_close(sharing.kept(found, network), gains.nanmean(0))


def test_own_minus_all_by_hand() -> None:
    first, second = torch.rand(2, 5, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    fires = torch.tensor([True, True, False, True, True])
    found = own_minus_all(Pictures(first, fires), Pictures(second, torch.ones(5, dtype=torch.bool)))
    alike = correlations(first[fires], second[fires])
    torch.testing.assert_close(found[fires], alike.diagonal() - alike.mean())
    assert found[2].isnan()


@pytest.mark.parametrize("resnet_keeps", [True, False])
def test_words_about_features_follow_the_numbers(resnet_keeps: bool) -> None:
    keeps = {"resnet34": resnet_keeps, "plainnet34": not resnet_keeps}
    page = shown(keeps=keeps, difference=0.3 if resnet_keeps else -0.3)
    single = sharing.pairing_answer(page).data
    assert "undecided (one training of each network: a comparison of networks takes 3)." in single
    page = page._replace(evidence={name: 3 * each for name, each in page.evidence.items()})
    said = sharing.pairing_answer(page).data
    for title, each in (("ResNet34", resnet_keeps), ("PlainNet34", not resnet_keeps)):
        assert (
            f"In {title}, channels of the same number are more alike than all pairs on average in {4 * each} of 4"
            in said
        )
    assert f"its feature {'more' if resnet_keeps else 'less'} in ResNet34." in said
    table = sharing.pairing_table(page)
    assert len(table) == 8 and (table["channels"] == 12).all() and "p" not in table
    assert table.loc["ResNet34" if resnet_keeps else "PlainNet34"]["same number: mean"].tolist() == ["+1.00"] * 4
    undecided = sharing.pairing_answer(page._replace(keeps=Interval(0.1, -0.1, 0.3, 24))).data
    assert "undecided" in undecided and "more in ResNet34" not in undecided


def test_channels_that_are_less_alike_are_told() -> None:
    page = shown(["resnet34"])
    apart = Step(page.steps["resnet34"]["conv1", "maxpool"].pairing, around(-0.5, 12))
    page.steps["resnet34"]["conv1", "maxpool"] = apart
    assert "in 3 of 4 steps from a layer to the next, and less alike in 1." in sharing.pairing_answer(page).data


def test_silent_layers_are_dashes() -> None:
    page = shown(["resnet34"])
    nothing = Step(pairing(torch.rand(0, 3, 7, 7), torch.rand(0, 3, 7, 7)), torch.full((12,), torch.nan))
    page = page._replace(steps={"resnet34": {("maxpool", "layer1.0"): nothing}})
    row = sharing.pairing_table(page).iloc[0]
    assert row.tolist() == ["–"] * 4 + [0]
    assert "in 0 of 1 steps" in sharing.pairing_answer(page).data


def test_pairings_are_points_over_what_chance_gives() -> None:
    page = shown()
    page.steps["plainnet34"]["layer1.0", "layer1.1"] = Step(
        pairing(torch.rand(0, 3, 7, 7), torch.rand(0, 3, 7, 7)), torch.zeros(0)
    )
    (ax,) = sharing.channel_pairings(page).axes
    points = [line for line in ax.lines if line.get_marker() in ("o", "s") and len(line.get_ydata())]
    # none where there are no channels
    assert [line.get_ydata()[0] for line in points] == pytest.approx([1.0] * 7, abs=0.01)
    bars = [line for line in ax.lines if line.get_linewidth() == 7 and len(line.get_ydata())]
    low, high = np.percentile(page.steps["resnet34"]["conv1", "maxpool"].pairing.by_chance, [2.5, 97.5])
    assert bars[0].get_ydata().tolist() == pytest.approx([low, high])
    assert ax.get_legend_handles_labels()[1] == ["ResNet34", "PlainNet34", "95 % of random pairings"]
    assert [label.get_text() for label in ax.get_xticklabels()][1:3] == ["pooling\nconv. 3", "conv. 3\nconv. 5"]


# -- what of it is architecture, what is learnt ------------------------------------------------------------------------


def handed(whole: float, cut: float, layers: Sequence[str], channels: int = 9) -> dict[str, HandedOn]:
    """Channels that follow their own by so much and others by 0.1, give or take; in the last layer one is silent."""

    def following(own: float, seed: int) -> torch.Tensor:
        alike = 0.1 + around(0, channels, channels, seed=seed) / 5
        return alike + (own - 0.1) * torch.eye(channels)

    found = {layer: HandedOn(following(whole, i), following(cut, i)) for i, layer in enumerate(layers[1:])}
    for each in found[layers[-1]]:
        each[2], each[:, 2] = torch.nan, torch.nan
    return found


def pictures_of(layers: Sequence[str], likeness: float, seed: int = 0) -> dict[str, LayerResponses]:
    """Channels whose pictures change from layer to layer, more or less; channel 4 never fires in the second."""
    generator = torch.Generator().manual_seed(seed)
    first, found = torch.rand(9, 3, 7, 7, generator=generator) - 0.5, {}
    for number, layer in enumerate(layers):
        change = (1 - likeness) * (torch.rand(9, 3, 7, 7, generator=generator) - 0.5)
        values = torch.ones(9, 1)
        values[4] = float(number != 1)
        nothing, count = torch.zeros(9, dtype=torch.float64), torch.ones(9, 7, 7).long()
        found[layer] = LayerResponses(
            ReceptiveField(7, 1, 0), 1, 100, values, values.long(), torch.zeros(9, 1, 2).long(), values[:, 0].long(),
            nothing, nothing, torch.zeros(9, 23).long(), None, None, likeness * first + change, count, None,
            torch.zeros(3, 7, 7),
        )  # fmt: skip
    return found


def plant(monkeypatch: pytest.MonkeyPatch, keeping: dict[str, tuple[float, float]], chance: float = 0.3) -> None:
    """Plant how far networks keep features: in pictures and in responses; by seed a little more."""

    def of(run: object, name: str, control: str | None) -> tuple[float, float]:
        assert control in (None, "random weights")
        return (chance, chance) if control else keeping[name]

    monkeypatch.setattr(
        results, "stimuli",
        lambda run, name, control=None: pictures_of(NETWORKS[name].stream, of(run, name, control)[0], run.seed),
    )  # fmt: skip
    monkeypatch.setattr(
        results, "handed_on",
        lambda run, name, control=None: handed(
            of(run, name, control)[1] + run.seed / 100, 0.1, NETWORKS[name].stream
        ),
    )  # fmt: skip


def runs_of(*networks: str, seeds: int = 1) -> list[Run]:
    return [Run(presets.get("smoke", networks=networks), seed, Path("nowhere")) for seed in range(seeds)]


@pytest.mark.parametrize(("trained", "learnt"), [((0.9, 0.8), True), ((0.3, 0.3), False)])
def test_parts_tell_what_is_learnt_from_what_is_there_anyway(
    trained: tuple[float, float], learnt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, dict.fromkeys(PAIR, trained))
    found = sharing.parts(runs_of(*PAIR), "resnet34")
    pictures = pictures_of(STREAM, trained[0])
    assert found.pictures == stats.mean(sharing.kept(pictures, NETWORKS["resnet34"])) and found.pictures.n == 9
    assert found.random_pictures == stats.mean(sharing.kept(pictures_of(STREAM, 0.3), NETWORKS["resnet34"]))
    assert found.learnt.value == pytest.approx(found.pictures.value - found.random_pictures.value)
    assert (found.learnt.value > 0.2) == learnt and (learnt or found.learnt.value == 0)
    # by hand: the mean over blocks of a channel's own correlation minus that of all pairs, without the silent one
    expected = []
    blocks = handed(trained[1], 0.1, STREAM).values()
    for channel in range(9):
        each = [block.whole[channel, channel] - np.nanmean(block.whole.numpy()) for block in blocks]
        expected.append(np.nanmean(each))
    assert found.responses == pytest.approx(stats.mean(expected)) and found.responses.n == 9
    assert found.random_responses.value == pytest.approx(8 / 9 * 0.2, abs=0.02)
    assert found.cut.value == pytest.approx(0, abs=0.02)
    assert found.responses.minus(found.random_responses.high).sign == int(learnt)


def test_over_seeds_the_parts_are_means_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, {"resnet18": (0.9, 0.8)})
    runs = runs_of("resnet18", seeds=3)
    singly, together = [sharing.parts([run], "resnet18") for run in runs], sharing.parts(runs, "resnet18")
    for each, name in zip(together, Parts._fields, strict=True):
        assert each.value == pytest.approx(np.mean([getattr(one, name).value for one in singly]))
        assert (each.n, each.of) == (3, "seeds")
    assert together.responses.sign == 1 and singly[0].responses.value < singly[2].responses.value


@pytest.mark.parametrize(
    ("plain", "verdict"), [((0.3, 0.2), AGREES), ((1.0, 0.95), DISAGREES), ((0.7, 0.6), CANNOT_TELL)]
)
def test_networks_are_compared_by_pictures_and_by_responses(
    plain: tuple[float, float], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, {"resnet34": (0.7, 0.6), "plainnet34": plain, "resnet34-short": (1.0, 0.95)})
    runs = runs_of(*PAIR)
    found = [sharing.keeps(runs), sharing.keeps_responses(runs)]
    assert [judge(each) for each in found] == [verdict] * 2
    assert [(each.n, each.of) for each in found] == [(18, "channels")] * 2
    ours, others = (sharing.parts(runs, name) for name in PAIR)
    assert found[1].value == pytest.approx(ours.responses.value - others.responses.value)
    assert found[0].value == pytest.approx(ours.pictures.value - others.pictures.value)
    other = NETWORKS["resnet34-short"]  # stands in for the subject
    assert sharing.keeps_responses(runs, other).value > found[1].value
    assert sharing.keeps(runs, other).value > found[0].value
    over_seeds = sharing.keeps_responses(runs_of(*PAIR, seeds=3))
    assert (over_seeds.n, over_seeds.of) == (3, "seeds")


@pytest.mark.parametrize("names", [("resnet50", "plainnet34"), ("resnet34",), ("resnet34", "resnet18")])
def test_without_a_pair_there_is_nothing_to_compare(names: tuple[str, ...]) -> None:
    for measure in (sharing.keeps, sharing.keeps_responses):
        assert measure(runs_of(*names)) == NOTHING


def test_every_cell_of_the_parts() -> None:
    page = shown(["resnet34", "plainnet34", "resnet34-plain-layer1", "resnet50"])
    page.parts["plainnet34"] = Parts(*[Interval(each.value - 0.1, *each[1:]) for each in PARTS])
    page.parts["resnet34-plain-layer1"] = Parts(*[NOTHING] * 6)
    table = sharing.parts_table(page)
    assert list(table.columns) == [
        "pictures", "pictures, random weights", "responses", "responses, random weights", "responses, skip cut",
    ]  # fmt: skip
    assert table.loc["ResNet34"].tolist() == [each.brief() for each in PARTS[:5]]
    assert table.loc["ResNet34"].iloc[0] == "+0.40 (+0.35 to +0.45)"
    # nothing can be cut where there is no skip
    assert table.loc["PlainNet34"].tolist() == [*(each.brief() for each in page.parts["plainnet34"][:4]), "–"]
    assert table.loc["ResNet34 without skips in layer1"].tolist() == ["–"] * 5 and len(table) == 3
    said = sharing.pairing_answer(page).data
    for title, chance in (("ResNet34", "+0.15"), ("PlainNet34", "+0.05")):
        assert f"With random weights, it is {chance} in {title}, which is architecture; what is learnt adds" in said
    assert "what is learnt adds +0.25 (+0.20 to +0.30, n = 12 channels)." in said
    for learnt, words in (
        (Interval(-0.25, -0.3, -0.2, 12), "what is learnt takes -0.25 ("),
        (Interval(0.1, -0.1, 0.3, 12), "whether what is learnt adds to it is undecided: +0.10 ("),
    ):
        page.parts["resnet34"] = PARTS._replace(learnt=learnt)
        assert words in sharing.pairing_answer(page).data


# -- how sparse are the layers? ----------------------------------------------------------------------------------------


def test_the_profile_shows_every_relu_in_per_cent() -> None:
    (ax,) = sharing.sparsity_profile(shown(["resnet34"])).axes
    whole, outer, inner = ax.lines
    assert whole.get_ydata().tolist() == pytest.approx([50, 70, 20])
    assert outer.get_xdata().tolist() == [0, 2] and inner.get_xdata().tolist() == [1]


def test_the_zigzag_is_counted() -> None:
    up_and_down = {"conv1": 0.5, "layer1.0.relu1": 0.7, "layer1.0": 0.2, "layer1.1.relu1": 0.8, "layer1.1": 0.3}
    smooth = {"conv1": 0.5, "layer1.0.relu1": 0.55, "layer1.0": 0.6, "layer1.1.relu1": 0.65, "layer1.1": 0.7}
    assert sharing.zigzag(up_and_down) == (2, 2)
    assert sharing.zigzag(smooth) == (0, 2)
    assert sharing.zigzag({"conv1": 0.5, "layer1.0.relu1": 0.1, "layer1.0.relu2": 0.7, "layer1.0": 0.2}) == (1, 1)
    page = shown()._replace(sparsity={"resnet34": up_and_down, "plainnet34": smooth})
    said = sharing.sparsity_answer(page).data
    assert "In ResNet34, more responses are 0 after the inner ReLU than at the output in 2 of 2 blocks" in said
    assert "changes its direction at 3 of 3 places" in said
    assert "in 0 of 2 blocks, and the profile changes its direction at 0 of 3 places" in said


# -- whose channels are they? ------------------------------------------------------------------------------------------


def test_readers_by_hand() -> None:
    strength = torch.cat([torch.linspace(1.5, 2.5, 12), torch.linspace(0.9, 1.1, CHANNELS - 12)])
    page = shown()
    page.read["resnet34"]["layer1.0.conv1"] = strength
    table = sharing.readers_table(page)
    blocks = [f"block of conv. layer {number}" for number in (3, 5, 7, 9)]
    assert list(table.loc["ResNet34"].index) == [*blocks, "projection around the block of conv. layer 9"]
    row = table.loc[("ResNet34", "block of conv. layer 3")]
    assert row["inactive"] == "2.00"
    assert row["minus the others"].startswith("+1.00")


def with_losses(early: float, late: float, inactive: int = 12) -> Evidence:
    noise = torch.linspace(-0.01, 0.01, IMAGES, dtype=torch.float64).repeat(CHANNELS, 1)
    return dataclasses.replace(evidence(inactive), ablated={"maxpool": early + noise, "layer1.2": late - noise})


def owned(found: Evidence, network: str = "resnet34") -> str:
    return sharing.ownership_answer(shown([network], {network: [found]})).data


def test_words_about_ownership_follow_the_numbers() -> None:
    assert "ResNet34 depends on these channels more behind conv. layer 7 than" in owned(with_losses(0, 1))
    assert "ResNet34 depends on these channels less behind conv. layer 7 than" in owned(with_losses(1, 0))
    assert "is undecided" in owned(with_losses(1, 1))
    assert "of the inactive channels" in owned(with_losses(0, 1))
    assert "of the least active channels" in owned(with_losses(0, 1, inactive=0))


def test_without_skips_nothing_is_written() -> None:
    plain = dataclasses.replace(with_losses(0, 1), written={}, by_chance={})
    said = owned(plain, "plainnet34")
    assert "written" not in said and "channels of the same numbers, which are others there" in said


def test_shares_and_ablations_are_drawn_for_every_network() -> None:
    page = shown(["resnet34", "plainnet34", "resnet18"])
    panels = [ax for ax in sharing.written_shares(page).axes if ax.axison]
    assert [ax.get_title().split("\n")[0] for ax in panels] == [
        "conv. layer 3", "conv. layer 5", "conv. layer 7", "conv. layer 3", "conv. layer 5",
    ]  # fmt: skip
    titles = [ax.get_title() for ax in sharing.ablations(page).axes]
    assert titles[:3] == [f"{name}\nfirst pooling layer" for name in ("ResNet34", "PlainNet34", "ResNet18")]
    assert titles[3:] == ["ResNet34\nconv. layer 7", "PlainNet34\nconv. layer 7", "ResNet18\nconv. layer 5"]
    assert len(sharing.written_shares(page).links()) == 5 * CHANNELS  # of the control, none
    assert len(sharing.ablations(page).links()) == 6 * CHANNELS
    assert sharing.ablations(page._replace(explored=None)).links() == []


def test_words_of_three_networks_stand_apart() -> None:
    figure = sharing.ablations(shown(["resnet34", "plainnet34", "resnet34-short"]))
    figure._repr_png_()
    texts = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 9
    for first, second in combinations(boxes, 2):
        assert not first.overlaps(second)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


# -- five predictions --------------------------------------------------------------------------------------------------


def pair(inactive: int, plain: int, sign: float = 1.0, seed: int = 0) -> dict[str, list[Evidence]]:
    return {"resnet34": [evidence(inactive, sign, seed)], "plainnet34": [evidence(plain, 0.0, seed + 10)]}


def verdicts(page: Shown) -> list[str]:
    return [each.verdict for each in sharing.predictions(page)]


def three(inactive: int, plain: int, sign: float = 1.0) -> dict[str, list[Evidence]]:
    return {name: [pair(inactive, plain, sign, seed)[name][0] for seed in range(3)] for name in PAIR}


def test_networks_that_fulfil_them_all() -> None:
    page = shown(found=three(12, 1))
    assert verdicts(page) == [AGREES, CANNOT_TELL, AGREES, AGREES, AGREES]  # three equal numbers have no interval
    assert "inactive" in sharing.predictions(page)[2].says
    said = sharing.predictions_answer(page).data
    assert "agrees with 4 and disagrees with 0; it cannot tell about 1" in said
    assert "trained once" not in said


def test_networks_that_break_them_all() -> None:
    found = verdicts(shown(found=three(4, 25, sign=-1.0), more=Interval(-0.5, -0.7, -0.3, 80)))
    assert found == [DISAGREES, CANNOT_TELL, DISAGREES, DISAGREES, DISAGREES]


def test_one_pair_cannot_tell_what_compares_networks() -> None:
    page = shown(found=pair(12, 1))
    assert verdicts(page) == [CANNOT_TELL, AGREES, AGREES, AGREES, CANNOT_TELL]
    assert sharing.predictions(page)[4].why == "one training of each network: a comparison of networks takes 3"
    assert "trained once" in sharing.predictions_answer(page).data


def test_without_inactive_channels_three_cannot_be_told() -> None:
    page = shown(found=pair(0, 0), more=Interval(0.0, -0.1, 0.1, 80))
    found = sharing.predictions(page)
    assert verdicts(page) == [CANNOT_TELL, AGREES, CANNOT_TELL, CANNOT_TELL, CANNOT_TELL]
    assert [each.why for each in found[2:]] == [sharing.none_inactive(NETWORKS["resnet34"])] * 3
    assert "least active" in found[2].says
    assert "+1.00" in found[2].measured  # it is measured all the same


def test_over_seeds_the_seeds_are_what_counts() -> None:
    several = {name: [pair(12, 1, seed=seed)[name][0] for seed in range(3)] for name in PAIR}
    page = shown(found=several)
    measured = [each.measured for each in sharing.predictions(page)[1:]]
    assert all("n = 3 seeds" in each or "no interval" in each for each in measured)
    assert "trained once" not in sharing.predictions_answer(page).data
    # one seed that says the opposite, and the interval holds 0
    several["resnet34"][2] = dataclasses.replace(evidence(12, -1.0), dose=several["resnet34"][2].dose)
    assert verdicts(page._replace(evidence=several))[2] == CANNOT_TELL


def test_only_networks_with_inactive_channels_count_where_one_has_some() -> None:
    several = {"resnet34": [evidence(12, seed=1), evidence(0, -1.0), evidence(12, seed=2)]}
    several["plainnet34"] = [evidence(1, 0.0, seed) for seed in range(3)]
    assert "n = 2 seeds" in sharing.predictions(shown(found=several))[2].measured


def test_unlike_leaves_silent_channels_out() -> None:
    strange = torch.tensor([0.9, torch.nan, 0.7, 0.1, 0.2, 0.3, 0.4])
    tested = torch.tensor([True, True, True, False, False, False, False])
    found = sharing.unlike(dataclasses.replace(evidence(12), strange=strange, tested=tested))
    assert found.value == pytest.approx(0.8 - 0.25)


def test_where_the_filters_make_every_picture_none_can_be_stranger() -> None:
    alike = [dataclasses.replace(each, strange=each.strange / 1000) for each in (evidence(12), evidence(1))]
    assert math.isnan(sharing.unlike(alike[0]).value)
    found = sharing.predictions(shown(found={"resnet34": [alike[0]], "plainnet34": [alike[1]]}))[3]
    assert (found.verdict, found.why) == (CANNOT_TELL, sharing.ALL_MADE)


@pytest.mark.parametrize("missing", [slice(None), slice(0, 12)])
def test_what_was_not_measured_is_not_made_by_the_filters(missing: slice) -> None:
    ours = evidence(12)
    ours.strange[missing] = torch.nan
    assert not sharing.all_made(ours) and math.isnan(sharing.unlike(ours).value)
    found = sharing.predictions(shown(found={"resnet34": [ours], "plainnet34": [evidence(1)]}))[3]
    assert found.verdict == CANNOT_TELL and found.why != sharing.ALL_MADE


def test_the_table_shows_every_word() -> None:
    page = shown(found=pair(12, 1))
    html = sharing.predictions_table(page).data
    for each in sharing.predictions(page):
        for text in (each.says, each.measured, each.verdict):
            assert text in html
    assert "..." not in html


def test_the_control_for_accuracy_stands_beside_what_is_compared() -> None:
    names = ["resnet34", "resnet34-short", "plainnet34"]
    found = pair(12, 1) | {"resnet34-short": [evidence(12, seed=3)]}
    controlled = Interval(0.11, 0.1, 0.12, 24)
    page = shown(names, found)._replace(more_at_equal_accuracy=controlled)
    first, *_, last = sharing.predictions(page)
    assert first.control == f"ResNet34, short training: {controlled:+.1%}"
    noise = [found[name][0].dose.loss["tested"][1] for name in names]
    same = found["resnet34-short"][0].dose.mean(noise[1] - noise[2])
    assert last.control.endswith(f"; ResNet34, short training: {same:+.3f}")
    assert [each.verdict for each in sharing.predictions(page)] == verdicts(shown(found=pair(12, 1)))
    none = shown(names, found | {"resnet34-short": [evidence(0)]})
    assert sharing.predictions(none)[-1].control.endswith("ResNet34, short training: –")


# -- other networks ----------------------------------------------------------------------------------------------------


def test_without_a_contrast_what_needs_one_says_so() -> None:
    page = shown(["resnet34"], {"resnet34": [evidence(12)]}, more=NOTHING)
    assert verdicts(page) == [CANNOT_TELL, AGREES, AGREES, AGREES, CANNOT_TELL]
    found = sharing.predictions(page)
    assert all("there is only ResNet34" in found[i].why and "–" in found[i].measured for i in (0, 4))
    assert "a network without skips" in found[0].says
    said = sharing.pairing_answer(page).data
    assert "This needs a network without skips" in said and "minus" not in said


def test_without_skips_there_is_nothing_to_predict() -> None:
    page = shown(["plainnet34"])
    assert sharing.predictions(page) == []
    assert "PlainNet34, the first of this run, is none" in sharing.predictions_answer(page).data
    assert "<th>prediction</th>" in sharing.predictions_table(page).data
    assert not sharing.written_shares(page).axes


def test_networks_of_bottleneck_blocks_are_left_out() -> None:
    page = shown(["resnet50", "plainnet34"])
    line = "Left out, as its layer1 has more channels than its stem: ResNet50."
    for answer in (sharing.pairing_answer(page), sharing.ownership_answer(page)):
        assert answer.data.endswith(line) and "In ResNet50" not in answer.data and "  " not in answer.data
    assert "In ResNet50" in sharing.sparsity_answer(page).data
    assert sharing.predictions(page) == [] and sharing.keeps([page.roles]) == NOTHING
    alone = shown(["resnet50"])
    assert sharing.pairing_answer(alone).data == f"**Answer.** {line}"
    for figure in (sharing.channel_pairings(alone), sharing.ablations(alone)):
        assert not figure.axes and figure.texts[0].get_text() == line
    assert all(table(alone).empty for table in (sharing.pairing_table, sharing.parts_table, sharing.readers_table))


def test_how_often_channels_fire_behind_each_block() -> None:
    found = evidence(12)
    table = sharing.filled_table(shown(found={"resnet34": [found]}))
    assert len(table) == 8 and list(table.columns) == ["inactive", "the others"]
    low, high = (50 + 50 * each(found.firing_rate[~found.tested]).item() for each in (torch.min, torch.max))
    mean = 50 + 50 * found.firing_rate[~found.tested].mean().item()
    assert table.loc[("ResNet34", "conv. layer 3"), "the others"] == f"{mean:.0f} % ({low:.0f} to {high:.0f} %)"
    assert "least active" in sharing.filled_table(shown(found={"resnet34": [evidence(0)]})).columns
