"""Double-opponent channels and hues in pictures, beside chance: what is drawn, and words that follow the numbers."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rfviz import stats
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import maximization, responses
from rfviz.kernels.controls import DRAWS
from rfviz.kernels.tuning import centre_surround, spots
from rfviz.kernels.tuning.centre_surround import Opponency
from rfviz.kernels.tuning.spots import CLASSES, ColourTuning
from rfviz.lab import results
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import NETWORKS, network
from rfviz.pages import colour
from rfviz.pages.colour import PICTURES, Shown
from rfviz.pages.style import covered, min_max, stretch
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, judge

NOTHING = Shown([], {}, {}, {}, {}, {})
RUN: Any = SimpleNamespace(network=network, whitening=lambda name: IMAGENET)
KINDS = (*PICTURES, "random weights")
DOUBLE, SINGLE, GREY = "double-opponent", "single-opponent", "achromatic"


def tuned(*names: str, index: float = 1.0) -> ColourTuning:
    """Channels of the classes that are named; double-opponent ones have an index."""
    drives = torch.zeros(len(names), 1, 2, 2, 3, dtype=torch.float64)
    drives[..., 0] = 0.5  # luminance
    for channel, name in enumerate(names):
        drives[channel, :, 0, :, 1] = float(name in (DOUBLE, SINGLE))
        drives[channel, :, 1, :, 1] = -index * (name == DOUBLE)
    told = torch.full((len(names),), torch.inf, dtype=torch.float64)
    strongest = drives.abs().amax((1, 2, 3))
    return ColourTuning(drives, strongest, told, torch.tensor([name != "silent" for name in names]))


def some(double: int, of: int, silent: int = 0) -> ColourTuning:
    return tuned(*[DOUBLE] * double, *[GREY] * (of - double), *["silent"] * silent)


def opponency(opponent: int, differing: int, plain: int, missing: int = 0) -> Opponency:
    """Pictures that are opponent, and so differ in hue; that differ only; that do neither; that are not there."""
    count = opponent + differing + plain + missing
    place = torch.arange(count)
    opposed = torch.tensor([[0.1, 1.0, 0], [0.1, 1.0, 0]], dtype=torch.float64).repeat(count, 1, 1)
    opposed[:opponent, 1, 1] = -0.5
    apart = opposed.clone()
    apart[opponent : opponent + differing, 1] = torch.tensor([0.1, 0.5, 0.5], dtype=torch.float64)
    p, hue_p = (torch.where(place < number, 0.01, 1.0).double() for number in (opponent, opponent + differing))
    for each in (opposed, apart, p, hue_p):
        each[count - missing :] = torch.nan
    return Opponency(opposed, apart, p, hue_p)


def of_tuning(layers: dict[str, ColourTuning], *control: ColourTuning, name: str = "resnet34") -> Shown:
    return NOTHING._replace(
        networks=[network(name)], tuning={name: layers}, controls={name: {layer: list(control) for layer in layers}}
    )


def of_pictures(kinds: dict[str, Opponency], name: str = "resnet34") -> Shown:
    return NOTHING._replace(networks=[network(name)], pictures={name: {"maxpool": kinds}})


# -- channels ----------------------------------------------------------------------------------------------------------


def test_the_planted_channels_come_out() -> None:
    names = [GREY, SINGLE, DOUBLE, "silent"]
    assert tuned(*names).classes == names
    assert tuned(DOUBLE, SINGLE, index=0.3).index.tolist() == pytest.approx([0.3, 0])
    found = opponency(2, 1, 3, missing=1)
    assert found.colour_opponent.tolist() == [True] * 2 + [False] * 5
    assert found.hue_differs.tolist() == [True] * 3 + [False] * 4


def test_double_opponent_channels_are_counted_among_those_that_respond() -> None:
    assert colour.double_opponent([tuned(DOUBLE, SINGLE, "silent"), tuned(DOUBLE, DOUBLE, GREY)]) == (3, 5)
    assert colour.double_opponent([tuned("silent")]) == (0, 0)


def per_channel(count: int, times: int) -> Tensor:
    """Share of its layers in which a channel is double-opponent: of 12 filters, and 12 times that in blocks."""
    shares = []
    for channel in range(12 * times + 2):
        of_each = []
        for size in (1, times, times):
            if channel < size * 12:
                of_each.append(float(channel < size * count))
        shares.append(sum(of_each) / len(of_each) if of_each else math.nan)
    return torch.tensor(shares, dtype=torch.float64)


@pytest.mark.parametrize(("found", "chance", "verdict"), [(9, 1, AGREES), (0, 6, DISAGREES), (2, 2, CANNOT_TELL)])
@pytest.mark.parametrize("name", ["resnet34", "plainnet18", "resnet50"])
def test_the_excess_counts_filters_blocks_and_draws(
    found: int, chance: int, verdict: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 channels in each layer, so many are double-opponent; behind bottlenecks there are 48."""
    asked = []

    def planted(run: object, name: str, layer: str, control: str | None = None, draw: int = 0) -> ColourTuning:
        asked.append((layer, control, draw))
        times = 4 if name == "resnet50" and layer != "conv1" else 1
        return some(times * (chance if control else found), times * 12, silent=2)

    monkeypatch.setattr(results, "colour", planted)
    share = colour.double_opponent_excess(RUN, name)
    there = ("conv1", "layer1.0", NETWORKS[name].last_block(1))
    expected = {(layer, None, 0) for layer in there}
    expected |= {(layer, "random weights", draw) for layer in there for draw in range(DRAWS)}
    assert set(asked) == expected and len(asked) == len(expected)
    ours, random = (per_channel(count, 4 if name == "resnet50" else 1) for count in (found, chance))
    expected_share = stats.difference(ours, random.repeat(DRAWS))._replace(n=int(ours.isfinite().sum()))
    assert share.n == expected_share.n and share[:3] == pytest.approx(expected_share[:3])
    assert judge(share) == verdict


def test_classes_are_counted_beside_random_weights() -> None:
    names = [GREY, SINGLE, SINGLE, DOUBLE, DOUBLE, DOUBLE, "silent"]
    layers = {"conv1": tuned(*names), "layer1.2": tuned("silent")}
    table = colour.class_table(of_tuning(layers, tuned(GREY, GREY, "silent"), tuned(DOUBLE, SINGLE)))
    assert list(table.columns[:-1]) == [*reversed(CLASSES)]
    first, last = table.loc[("ResNet34", "first filters")], table.loc[("ResNet34", "conv. layer 7")]
    assert [first[name] for name in CLASSES] == ["1", "2", "3", "1"]
    assert [last[name] for name in CLASSES] == ["0", "0", "0", "1"]
    assert first["double-opponent, random weights"] == last["double-opponent, random weights"] == "1 of 4"


@pytest.mark.parametrize(
    ("found", "chance", "verdict"), [(12, 2, "more"), (2, 2, "undecided"), (0, 8, "fewer"), (None, 2, "undecided")]
)
def test_words_about_channels_follow_the_numbers(found: int | None, chance: int, verdict: str) -> None:
    layer = some(found, 12) if found is not None else tuned("silent")
    page = of_tuning({"conv1": some(1, 12), "layer1.1": layer}, some(chance, 12), name="resnet18")
    first, second = (
        stats.share_difference(ours, (chance, 12)) for ours in ((1, 12), (0, 0) if found is None else (found, 12))
    )
    (line,) = colour.class_answer(page).data.splitlines()[2:]
    of_filters = {2: "undecided", 8: "fewer"}[chance]
    assert line == (
        f"- ResNet18 has 1 and {found or 0}: first filters {first:+.0%}, {of_filters}; "
        f"conv. layer 5 {second:+.0%}, {verdict}."
    )


# -- figure ------------------------------------------------------------------------------------------------------------


def test_the_most_double_opponent_channels_are_drawn(resnet: ResidualNet, tiles: Evaluation) -> None:
    """Of a network with some in its filters and behind layer1, of one with some behind layer1, and of one with none."""
    found = responses.collect(resnet, tiles, ["layer1.2"], 1, strongest=8)
    drives = torch.zeros(6, 1, 2, 2, 3, dtype=torch.float64)
    drives[:, :, 0, :, 1:] = torch.tensor([1.0, 0.5], dtype=torch.float64)
    drives[:, :, 1, :, 1:] = -0.8 * drives[:, :, 0, :, 1:] * torch.arange(6).view(6, 1, 1, 1) / 5
    told = torch.full((6,), torch.inf).double()
    graded = ColourTuning(drives, drives.abs().amax((1, 2, 3)), told, torch.ones(6, dtype=torch.bool))
    assert graded.classes[3:] == [DOUBLE] * 3
    measured = spots.of_filters(resnet.conv1.weight)
    filters = dataclasses.replace(
        measured, drives=graded.drives.roll(1, 0), strongest=graded.strongest.roll(1, 0), told=graded.told
    )
    plain = tuned(*[SINGLE] * 5, GREY)
    names = ("resnet34", "plainnet34", "resnet18")
    layers = (
        {"conv1": filters, "layer1.2": graded}, {"conv1": plain, "layer1.2": graded},
        {"conv1": plain, "layer1.1": plain},
    )  # fmt: skip
    page = NOTHING._replace(
        networks=[network(name) for name in names], tuning=dict(zip(names, layers, strict=True)),
        filters=dict.fromkeys(names, resnet.conv1.weight.detach()), stimuli=dict.fromkeys(names, found),
    )  # fmt: skip
    figure = colour.double_opponent_channels(page)
    both, one, none = figure.subfigs
    assert [band.get_suptitle() for band in figure.subfigs] == [
        "ResNet34", "PlainNet34", "ResNet18: none is double-opponent",
    ]  # fmt: skip
    assert not none.axes
    titles = [[ax.get_title() for ax in band.axes if ax.axison] for band in (both, one)]
    assert titles == [
        ["first filter, ch. 0", "index 0.80", "conv. 7, ch. 5", "index 0.80"], ["conv. 7, ch. 5", "index 0.80"],
    ]  # fmt: skip
    picture, drawn, other, _ = both.axes
    np.testing.assert_allclose(
        picture.get_images()[0].get_array(), min_max(page.filters["resnet34"][0]).permute(1, 2, 0)
    )
    deviation, count = found["layer1.2"].strongest_deviation[5], found["layer1.2"].strongest_count[5]
    expected = covered(stretch(deviation)[0], count).permute(1, 2, 0)
    np.testing.assert_allclose(other.get_images()[0].get_array(), expected)
    heights = [bar.get_height() for bar in drawn.patches]
    assert heights == pytest.approx([1, 0.5, -0.8, -0.4])  # +L-M and +S here, then there
    legends = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in (both.axes[1], both.axes[3])]
    assert legends == [["one place", "another"], ["centre", "ring"]]
    addresses = [link.address.partition("#")[2] for link in figure.links()]
    assert addresses == ["resnet34/maxpool/0", "resnet34/layer1.2/5", "plainnet34/layer1.2/5"]
    assert len(figure._repr_png_()) > 5000


def test_a_channel_that_has_no_stimulus_has_no_picture(resnet: ResidualNet, tiles: Evaluation) -> None:
    found = responses.collect(resnet, tiles, ["layer1.2"], 1, strongest=8)["layer1.2"]
    silent = dataclasses.replace(found, top_values=torch.zeros_like(found.top_values))
    page = NOTHING._replace(
        networks=[network("resnet34")], filters={"resnet34": resnet.conv1.weight.detach()},
        tuning={"resnet34": {"conv1": tuned(*[GREY] * 6), "layer1.2": some(6, 6)}},
        stimuli={"resnet34": {"layer1.2": silent}},
    )  # fmt: skip
    picture, drives, *_ = colour.double_opponent_channels(page).subfigs[0].axes
    assert not picture.get_images() and len(drives.patches) == 4


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_of_channels_that_fire_are_measured(
    resnet: ResidualNet, tiles: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = responses.collect(resnet, tiles, ["maxpool"], 1, strongest=8, preprocess=IMAGENET)["maxpool"]
    silent = found.positive_count.clone()
    silent[2] = 0
    found = dataclasses.replace(found, positive_count=silent)
    made = [maximization.maximize(resnet, "maxpool", steps=steps) for steps in (2, 3, 4)]
    monkeypatch.setattr(results, "stimuli", lambda run, name: {"maxpool": found})
    monkeypatch.setattr(results, "maxima", lambda run, name, layer, control=None: made[2 if control else 0])
    monkeypatch.setattr(results, "clear_maxima", lambda run, name, layer: made[1])
    measured = results.opponency.function(RUN, "resnet34", "maxpool")
    background = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    mean = (found.mean_deviation + background.float()[:, None, None]).clamp(0, 1)
    fires = [0, 1, 3, 4, 5]
    images: list[Tensor] = [mean, *(IMAGENET.to_rgb(each.images) for each in made)]
    assert tuple(measured) == KINDS
    for each, shown in zip(measured.values(), images, strict=True):
        assert each.p.isfinite().nonzero().flatten().tolist() == fires
        expected = centre_surround.measure(shown[fires], background)
        torch.testing.assert_close(each.differing[fires], expected.differing, rtol=1e-5, atol=1e-6)
    assert len({each.differing[fires].sum().item() for each in measured.values()}) == 4


def test_pictures_that_pass_are_counted_by_hue_and_opponency() -> None:
    kinds = dict(zip(KINDS, (opponency(*each, missing=2) for each in ((3, 2, 5), (0, 4, 6), (1, 0, 9), (0, 0, 10))),
                     strict=True))  # fmt: skip
    row = colour.opponency_table(of_pictures(kinds)).loc[("ResNet34", "first pooling layer")]
    assert row.to_dict() == {
        "mean stimulus": "5 (3)", "maximization": "4 (0)", "clear picture": "1 (1)",
        "maximization, random weights": "0 (0)", "pictures": "10",
    }  # fmt: skip


def test_channels_without_a_picture_do_not_count() -> None:
    kinds = {"maximization": opponency(1, 1, 2, missing=2), "mean": opponency(0, 0, 6)}
    for found, sign in ((kinds, 1), (dict(zip(kinds, reversed(kinds.values()), strict=True)), -1)):
        lead = colour.hue_lead(found)
        assert (lead.value, lead.n) == (sign * 0.5, 4)


@pytest.mark.parametrize(
    ("maximization", "mean", "verdict"),
    [
        ((8, 8, 4), (0, 2, 18), "maximization more often"),
        ((0, 2, 18), (8, 8, 4), "the mean more often"),
        ((0, 9, 11), (0, 8, 12), "undecided"),
        ((0, 0, 20), (0, 0, 20), "undecided"),
        ((0, 0, 0, 20), (0, 0, 0, 20), "undecided"),
    ],
)
def test_words_about_pictures_follow_the_numbers(maximization: tuple, mean: tuple, verdict: str) -> None:
    """What lies apart is hue, which more pictures differ in than are opponent; channel by channel."""
    kinds = {"maximization": opponency(*maximization), "mean": opponency(*mean)}
    lead = colour.hue_lead(kinds)
    own, others = ([1.0] * sum(each[:2]) + [0.0] * each[2] for each in (maximization, mean))
    expected = stats.mean([a - b for a, b in zip(own, others, strict=True)])
    assert lead[:1] == pytest.approx(expected[:1]) and lead[3:] == expected[3:] if own else lead.n == 0
    assert lead == pytest.approx(expected, nan_ok=True) or not any(own + others)
    (line,) = colour.opponency_answer(of_pictures(kinds)).data.splitlines()[2:]
    assert line == f"- ResNet34: first pooling layer {lead:+.0%}, {verdict}."


def test_pictures_that_never_differ_leave_open_what_so_few_can_tell() -> None:
    kinds = {"maximization": opponency(0, 0, 18), "mean": opponency(0, 0, 18)}
    lead = colour.hue_lead(kinds)
    assert lead.value == 0 and lead.n == 18
    assert lead.high == -lead.low == pytest.approx(stats.share(0, 18).high)


def test_the_lead_is_paired_and_of_any_two_kinds() -> None:
    turned = opponency(0, 5, 5)
    turned = dataclasses.replace(turned, **{each: getattr(turned, each).flip(0) for each in ("differing", "hue_p")})
    kinds = {"clear": turned, "mean": opponency(0, 5, 5), "maximization": opponency(0, 10, 0)}
    swapped = colour.hue_lead(kinds, "clear")
    assert swapped.value == 0 and swapped.high > 0.5  # as many, but others
    assert colour.hue_lead(kinds, "maximization", "clear").value == 0.5


def test_one_network_of_another_kind_has_its_own_titles() -> None:
    page = of_pictures(dict.fromkeys(KINDS, opponency(1, 1, 1)), "resnet50")
    page.pictures["resnet50"]["layer1.2"] = page.pictures["resnet50"]["maxpool"]
    assert colour.opponency_table(page).index.tolist() == [
        ("ResNet50", "first pooling layer"), ("ResNet50", "conv. layer 10"),
    ]  # fmt: skip
    assert colour.layers(network("resnet50")) == ("conv1", "layer1.0", "layer1.2")
