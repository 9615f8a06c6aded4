"""Figures, numbers and words about higher layers follow what was measured, whichever way it comes out."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rfviz import stats
from rfviz.images.data import Evaluation
from rfviz.kernels import controls
from rfviz.kernels.effective import EffectiveFields, effective_fields
from rfviz.kernels.identify import KINDS
from rfviz.kernels.responses import collect, preferred_stimuli
from rfviz.lab import presets, results
from rfviz.lab.run import Run
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import higher
from rfviz.pages.higher import Scores, Shown
from rfviz.pages.style import NO_IMAGE

FIELD = ReceptiveField(31, 1, -15)


def squares(side: int, channels: int = 8, top: int = 2) -> EffectiveFields:
    """Fields of equal weights in a square around the centre of images of 31 px, slightly different per channel."""
    count = channels * top
    maps = torch.zeros(count, 31, 31)
    for i in range(count):
        half = side // 2
        maps[i, 15 - half : 16 + half, 15 - half : 16 + half + i // top] = 1
    return EffectiveFields(
        FIELD, torch.arange(channels).repeat_interleave(top), torch.arange(count), torch.full((count, 2), 15),
        torch.full((count, 2), 31), maps / maps.sum((1, 2), keepdim=True),
    )  # fmt: skip


def scores(*means: float) -> Scores:
    around = torch.linspace(-0.05, 0.05, 12, dtype=torch.float64)
    turned = (around, around.flip(0), around.roll(5))  # differences have a spread of their own
    return {kind: mean + each for kind, mean, each in zip(KINDS, means, turned, strict=True)}


def shown(networks: Sequence[str] = ("resnet34",), **fields: Any) -> Shown:
    run = Run(presets.get("smoke", networks=networks), 0, Path("nowhere"))
    return Shown(**{"run": run, "fields": {}, "controls": {}, "scores": {}, "contrasts": {}, **fields})


# -- what matters in a stimulus ----------------------------------------------------------------------------------------


def images_in(axes: list) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for ax in axes for image in ax.get_images()]


def drawn(tiles: Evaluation, fields: dict, chance: dict) -> Shown:
    page = shown(fields={"resnet34": fields}, controls={"resnet34": chance})
    return page._replace(run=SimpleNamespace(stimuli=tiles))


def test_what_matters_is_shown_and_the_rest_is_grey(resnet: ResidualNet, tiles: Evaluation) -> None:
    found = collect(resnet, tiles, ["layer1.0", "layer3.0"], 1, mean_stimulus=False, borders=True)
    other = controls.calibrated(controls.control(resnet, "random weights"), tiles)
    fields, chance = (
        {layer: effective_fields(net, layer, tiles, each, [1, 2, 4], top=1) for layer, each in found.items()}
        for net in (resnet, other)
    )
    figure = higher.what_matters(drawn(tiles, fields, chance), resnet.network, columns=2)
    small, large = figure.subfigs
    assert len(small.subfigs) == len(large.subfigs) == 2
    assert "conv. layer 3, field of 27 × 27 px" in small.get_suptitle()
    # A field that fits the image is cut out of it.
    patches, inside = preferred_stimuli(tiles, found["layer1.0"], 1)
    stimulus, matters, weights, random = images_in(small.subfigs[0].axes)
    expected = torch.where(inside[0], patches[0], torch.tensor(NO_IMAGE)).permute(1, 2, 0)
    np.testing.assert_allclose(stimulus, expected)
    assert weights.shape == random.shape == (27, 27, 3)
    alpha = weights[..., :1]
    blended = np.where(inside[0][..., None], 0.5 + alpha * (stimulus - 0.5), NO_IMAGE)
    np.testing.assert_allclose(matters, blended, atol=1e-6)
    # One that does not is shown with the whole image, the cross at the neuron.
    stimulus, _, weights, random = images_in(large.subfigs[0].axes)
    np.testing.assert_allclose(stimulus, tiles[int(fields["layer3.0"].images[0])][0].permute(1, 2, 0))
    np.testing.assert_allclose(random[..., 0], higher.opacity(chance["layer3.0"].maps[0]))
    (cross,) = large.subfigs[0].axes[1].lines
    y, x = fields["layer3.0"].centres[0].tolist()
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (x, y)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_fewer_channels_than_columns_leave_room(resnet: ResidualNet, tiles: Evaluation) -> None:
    found = collect(resnet, tiles, ["layer1.0"], 1, mean_stimulus=False, borders=True)["layer1.0"]
    fields = {"layer1.0": effective_fields(resnet, "layer1.0", tiles, found, [3], top=1)}
    figure = higher.what_matters(drawn(tiles, fields, fields), resnet.network, columns=3)
    assert [len(images_in(group.axes)) for group in figure.subfigs[0].subfigs] == [4, 0, 0]


def test_without_a_contrast_its_figure_says_so() -> None:
    figure = higher.what_matters(shown(), None)
    assert not figure.axes and "this run has ResNet34" in figure.texts[0].get_text()


def test_opacity_is_full_where_weights_are_and_none_elsewhere() -> None:
    weights = torch.zeros(96, 96)
    weights[40:60, 40:60] = 1
    alpha = higher.opacity(weights)
    assert alpha[50, 50] == 1 and alpha[5, 5] < 1e-6 and alpha.min() >= 0
    assert not higher.opacity(torch.zeros(9, 9)).any()


@pytest.mark.parametrize(
    ("side", "control", "said"),
    [(3, 9, "less than with"), (9, 3, "more than with"), (5, 5, "not distinguishable from that")],
)
def test_effective_fields_are_compared_with_random_weights(side: int, control: int, said: str) -> None:
    fields, chance = squares(side), squares(control)
    if side == control:  # half of the channels one way, half the other
        fields.maps[:8], chance.maps[8:] = squares(9).maps[:8], squares(9).maps[8:]
    page = shown(
        fields={"resnet34": {"layer2.3": fields, "layer3.5": fields}},
        controls={"resnet34": {"layer2.3": chance, "layer3.5": chance}},
    )
    row = higher.effective_table(page).loc["ResNet34", "conv. layer 15"]
    assert row["field"] == "31 px" and row["n"] == "16 stimuli, 8 channels"
    assert row["effective diameter (px)"].startswith(f"{np.median(fields.diameter):.0f} (")
    assert row["with random weights"].startswith(f"{np.median(chance.diameter):.0f} (")
    ratio = stats.median(fields.diameter / chance.diameter, groups=fields.channels)
    assert row["diameter over that with random weights"] == ratio.brief(".2f")
    assert row["share of the field in the image"].startswith(f"{np.median(fields.share):.1%} (")
    text = higher.effective_answer(page).data
    assert text.startswith("**Answer.** In ResNet34, the median effective diameter is ")
    assert f"this is {said}" in text and "conv. layer 15 and conv. layer 27." in text


def test_a_layer_without_stimuli_is_a_dash() -> None:
    none = {"plainnet34": {"layer4.2": squares(3, 0)}}
    page = shown(["plainnet34"], fields=none, controls=none)
    assert higher.effective_table(page).iloc[0]["effective diameter (px)"] == "–"
    assert "In PlainNet34, no channel depends on the image" in higher.effective_answer(page).data


# -- do the pictures work as stimuli? ----------------------------------------------------------------------------------


def test_points_and_intervals_of_identification() -> None:
    generator = torch.Generator().manual_seed(0)
    networks = ("resnet34", "plainnet34", "resnet18")
    found = {
        name: {
            layer: {kind: torch.rand(9, generator=generator) for kind in KINDS}
            for layer in NETWORKS[name].picture_layers
        }
        for name in networks
    }
    figure = higher.identification_by_layer(shown(networks, scores=found))
    for ax, (name, layers) in zip(figure.axes, found.items(), strict=True):
        assert NETWORKS[name].title in ax.get_title()
        *points, chance = ax.lines
        assert set(chance.get_ydata()) == {0.5} and chance.get_linestyle() == "--"
        assert len({line.get_marker() for line in points}) == len({line.get_color() for line in points}) == 3
        for line, bars, kind in zip(points, ax.collections, KINDS, strict=True):
            expected = [stats.mean(each[kind]) for each in layers.values()]
            assert line.get_ydata().tolist() == pytest.approx([each.value for each in expected])
            ends = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
            assert np.array(ends) == pytest.approx(np.array([[each.low, each.high] for each in expected]))
    labels = [[label.get_text() for label in ax.get_xticklabels()] for ax in figure.axes]
    assert labels[0] == labels[1] == ["pooling", "conv. 3", "conv. 7", "conv. 15"]
    assert labels[2] == ["pooling", "conv. 3", "conv. 5", "conv. 9"]


@pytest.mark.parametrize(
    ("means", "words", "verdict"),
    [
        (
            (0.5, 0.7, 0.95),
            ("firing neurons scores 0.50", "not distinguishable from chance", "maximization scores 0.95"),
            ("better than the mean over all firing neurons", "better than the mean over the strongest"),
        ),
        (
            (0.9, 0.6, 0.3),
            (
                "firing neurons scores 0.90",
                "n = 12 channels), better than chance",
                "n = 12 channels), worse than chance",
            ),
            ("worse than the mean over all firing neurons", "worse than the mean over the strongest"),
        ),
        (
            (0.8, 0.6, 0.8),
            ("maximization scores 0.80", "n = 12 channels), better than chance"),
            ("not distinguishable from the mean over all firing neurons", "better than the mean over the strongest"),
        ),
    ],
)
def test_words_about_pictures_follow_the_numbers(means: tuple, words: tuple, verdict: tuple) -> None:
    found = {"resnet34": {"maxpool": scores(0.9, 0.9, 0.9), "layer2.3": scores(*means)}}
    page = shown(scores=found, contrasts={0.5: {"resnet34": scores(*means)}})
    text = higher.identification_answer(page).data
    assert "In the highest layer tested of ResNet34, conv. layer 15," in text
    assert all(each in text for each in words)
    leads = [stats.mean(found["resnet34"]["layer2.3"][KINDS[2]] - found["resnet34"]["layer2.3"][k]) for k in KINDS[:2]]
    said = ", and ".join(f"{each}, with a difference of {lead:+.3f}" for each, lead in zip(verdict, leads, strict=True))
    assert f"On the same channels, maximization is {said}." in text
    row = higher.identification_table(page).loc["ResNet34", "conv. layer 15"]
    assert row["channels"] == 12
    assert [float(row[kind].split()[0]) for kind in KINDS] == pytest.approx(means, abs=0.006)
    assert higher.contrasts_table(page).loc["0.5", "ResNet34", "conv. layer 15"].tolist() == row.tolist()


def test_scores_of_one_in_every_channel_are_better_than_chance() -> None:
    perfect = {**scores(0.7, 0.7, 0.7), KINDS[-1]: torch.ones(12, dtype=torch.float64)}
    text = higher.identification_answer(shown(scores={"resnet34": {"layer2.3": perfect}})).data
    assert "maximization scores 1.00 (1.00 to 1.00, n = 12 channels), better than chance" in text


def test_silent_channels_leave_dashes() -> None:
    nothing = {kind: torch.full((5,), math.nan) for kind in KINDS}
    page = shown(["plainnet34"], scores={"plainnet34": {"layer2.3": nothing}})
    assert higher.identification_table(page).iloc[0].tolist() == ["–", "–", "–", 0]
    assert "In PlainNet34, too few channels fire to tell." in higher.identification_answer(page).data


def test_other_pages_get_the_numbers_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    by_seed = [scores(0.5, 0.7, 0.9), scores(0.6, 0.7, 0.8), scores(0.4, 0.7, 0.8)]
    monkeypatch.setattr(results, "identification", lambda run, network, layer: by_seed[run.seed])
    runs: list[Any] = [SimpleNamespace(seed=seed) for seed in range(3)]
    first = stats.mean(by_seed[0][KINDS[2]] - by_seed[0][KINDS[0]])
    assert higher.lead(runs[:1], "resnet34", "layer2.3") == first
    assert f"with a difference of {first:+.3f}" in higher.identification_answer(
        shown(scores={"resnet34": {"layer2.3": by_seed[0]}})
    ).data  # fmt: skip
    assert higher.score(runs[:1], "resnet34", "layer2.3", KINDS[1]) == stats.mean(by_seed[0][KINDS[1]])
    several = higher.lead(runs, "resnet34", "layer2.3")
    assert several.of == "seeds" and several.n == 3 and several.value == pytest.approx((0.4 + 0.2 + 0.4) / 3)
