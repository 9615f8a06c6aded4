"""The sheets and numbers of the explorer, against the results that they are drawn from."""

import dataclasses
import io
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from rfviz.explorer import atlas, facts
from rfviz.explorer.facts import NEAREST, STATISTICS, LayerFacts
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import maximization, responses, tuning
from rfviz.kernels.pictures import correlations
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.tuning import spots
from rfviz.kernels.tuning.opponent import opponent
from rfviz.nets import models
from rfviz.pages import style

LAYER = "layer1.0"


@pytest.fixture
def layer(resnet: models.ResidualNet, tiles: Evaluation) -> LayerFacts:
    found = responses.collect(resnet, tiles, [LAYER], 5, strongest=8)[LAYER]
    driven = maximization.maximize(resnet, LAYER, steps=3)
    tuned = {"orientation": tuning.measure(resnet, LAYER), "colour": spots.measure(resnet, LAYER)}
    told = {"wrote": torch.linspace(-0.2, 0.8, 6), "removal": torch.linspace(0, 1, 6)}
    return LayerFacts(tiles, found, driven, IMAGENET, resnet.conv1.weight.detach(), (2, 4), **tuned, **told)


def silenced(layer: LayerFacts, channel: int) -> LayerFacts:
    """A copy in which a channel has never responded."""

    def zero(values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values[channel] = 0
        return values

    found = layer.found
    changes = {name: zero(getattr(found, name)) for name in ("top_values", "positive_count", "maximum", "mean")}
    return layer._replace(found=dataclasses.replace(found, **changes))


def decoded(sheet: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sheet)))


def cells(drawn: atlas.Drawn) -> Callable[[str, int], np.ndarray]:
    """Decode the encoded sheets, and return what cuts a picture of a channel out of them, as a browser does."""
    sheets = [decoded(sheet) for sheet in drawn[:-1]]

    def cell(key: str, channel: int) -> np.ndarray:
        kind, _, place = key.partition(" ")
        side = size = drawn.facts["cell"]
        if kind == "stimulus":
            column = int(place)
        else:
            column = [each["key"] for each in drawn.facts["columns"]].index(key)
            size = drawn.facts["columns"][column]["size"]
        return sheets[kind == "stimulus"][channel * side : channel * side + size, column * side : column * side + size]

    return cell


def as_bytes(image: torch.Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def planes(found: LayerResponses, channel: int) -> dict[str, torch.Tensor]:
    """How the mean over the strongest differs from the mean patch, along three axes of colour, as greys."""
    apart = opponent(found.strongest_stimulus[channel]) - opponent(found.competing_patch)
    apart = torch.where(found.strongest_count[channel] > 0, apart, 0).float()
    return {
        key: style.covered(style.stretch(plane.expand(3, -1, -1))[0], found.strongest_count[channel])
        for key, plane in zip(("luminance", "l-m", "s"), apart, strict=True)
    }


def test_every_cell_is_the_picture_that_it_says(layer: LayerFacts) -> None:
    drawn, found = atlas.draw(layer), layer.found
    cell = cells(drawn)
    assert drawn.facts["cell"] == found.receptive_field.size == 27
    for channel in range(6):
        expected = {
            "filter": style.min_max(layer.filters[channel]),
            "mean": style.covered(found.mean_stimulus[channel], found.mean_count[channel]),
            "stretched": style.covered(style.stretch(found.mean_deviation[channel])[0], found.mean_count[channel]),
            "strongest": style.covered(
                style.stretch(found.strongest_deviation[channel])[0], found.strongest_count[channel]
            ),
            **planes(found, channel),
            "maximization": IMAGENET.to_rgb(layer.maxima.images[channel]),
        }
        assert list(expected) == [each["key"] for each in drawn.facts["columns"]]
        patches, inside = responses.preferred_stimuli(layer.images, found, channel)
        for rank, (patch, there) in enumerate(zip(patches, inside, strict=True)):
            drives = found.top_values[channel, rank] > 0
            expected[f"stimulus {rank}"] = torch.where(there & drives, patch, torch.tensor(style.NO_IMAGE))
        for key, image in expected.items():
            np.testing.assert_array_equal(cell(key, channel), as_bytes(image), err_msg=f"{key} {channel}")


def test_gains_are_those_of_the_figures(layer: LayerFacts) -> None:
    for channel, said in enumerate(atlas.draw(layer).facts["channels"]):
        for key, mean in (("stretched", layer.found.mean_deviation), ("strongest", layer.found.strongest_deviation)):
            assert said["gains"][key] == pytest.approx(style.stretch(mean[channel])[1], rel=1e-3)


def test_statistics_are_those_of_the_responses(layer: LayerFacts) -> None:
    found, told = layer.found, facts.describe(layer)["channels"]
    agreement = correlations(found.mean_deviation, IMAGENET.to_rgb(layer.maxima.images.double(), clip=False))
    for channel in range(6):
        mean, strong = found.mean[channel].item(), found.strongest_deviation[channel].double()
        expected = {
            "maximum": found.maximum[channel].item(),
            "mean": mean,
            "firing_rate": 100 * int(found.positive_count[channel]) / found.neuron_count,
            "peak": found.maximum[channel].item() / mean,
            "contrast": strong.abs().max().item(),
            "agreement": agreement[channel, channel].item(),
            "orientation": layer.orientation.selectivity[channel].item(),
            "colour": layer.colour.sensitivity[channel].item(),
            "wrote": 100 * layer.wrote[channel].item(),
            "removal": layer.removal[channel].item(),
        }
        assert list(expected) == [each.key for each in STATISTICS]
        for key, value in expected.items():
            expected_value = pytest.approx(value, rel=1e-5) if math.isfinite(value) else None
            assert told[channel]["statistics"][key] == expected_value, key
        assert told[channel]["histogram"] == found.histogram[channel].tolist()
        assert told[channel]["positive"] == int(found.positive_count[channel])
        assert told[channel]["colour"] == layer.colour.classes[channel]
        curve = told[channel]["orientation"]
        assert curve["curve"] == pytest.approx(layer.orientation.orientation_curve[channel].tolist(), rel=1e-5)
        preferred = layer.orientation.preferred_orientation[channel].item()
        assert curve["preferred"] == (pytest.approx(preferred, rel=1e-5) if math.isfinite(preferred) else None)
        assert told[channel]["inactive"] == (channel in (2, 4))
        assert told[channel]["curve"] == pytest.approx(layer.maxima.activations[:, channel].tolist(), rel=1e-5)


def test_a_stimulus_says_where_it_was(layer: LayerFacts) -> None:
    drawn, found = atlas.draw(layer), layer.found
    sheet = decoded(drawn.sources).astype(float)
    for channel, said in enumerate(drawn.facts["channels"]):
        for rank, (value, place, *box, number) in enumerate(said["stimuli"]):
            assert number == rank
            assert value == pytest.approx(found.top_values[channel, rank].item(), rel=1e-5)
            source = drawn.facts["sources"][place]
            assert source["image"] == found.top_images[channel, rank]
            assert tuple(box) == found.receptive_field.box(*found.top_positions[channel, rank].tolist())
            image, label = layer.images[source["image"]]
            assert (source["height"], source["width"]) == (64, 64)
            assert source["class"] == layer.images.classes[label]
            side = atlas.SOURCE
            small = sheet[source["y"] : source["y"] + side, source["x"] : source["x"] + side]
            again = np.asarray(Image.fromarray(small.astype(np.uint8)).resize((64, 64), Image.Resampling.BOX))
            assert np.abs(again - as_bytes(image).astype(float)).mean() < 8  # lossy, but the same picture


def test_nearest_channels_are_the_most_alike(layer: LayerFacts) -> None:
    alike = correlations(layer.found.strongest_deviation, layer.found.strongest_deviation)
    for channel, said in enumerate(facts.describe(layer)["channels"]):
        others = sorted((other for other in range(6) if other != channel), key=lambda other: -alike[channel, other])
        assert [other for other, _ in said["nearest"]] == others[:NEAREST]
        assert [r for _, r in said["nearest"]] == pytest.approx([alike[channel, o].item() for o in others], abs=1e-3)


def test_a_channel_that_never_fires_has_no_picture_of_its_stimuli(layer: LayerFacts) -> None:
    drawn = atlas.draw(silenced(layer, 3))
    cell = cells(drawn)
    said = drawn.facts["channels"]
    assert not said[3]["fires"] and said[2]["fires"]
    assert said[3]["stimuli"] == [] and said[3]["nearest"] == []
    seen = {key: said[3]["statistics"][key] for key in list(said[3]["statistics"])[:6]}  # without the gratings
    assert seen == {
        "maximum": 0, "mean": 0, "firing_rate": 0, "peak": None, "contrast": None, "agreement": None,
    }  # fmt: skip
    assert all(3 not in [other for other, _ in each["nearest"]] for each in said)
    grey = round(255 * style.NO_IMAGE)
    for key in ("mean", "stretched", "strongest", "stimulus 0"):
        assert np.unique(cell(key, 3)).tolist() == [grey]
    assert len(np.unique(cell("maximization", 3))) > 10
    json.dumps(drawn.facts, allow_nan=False)


def test_layers_without_means_or_filters(layer: LayerFacts) -> None:
    bare = dataclasses.replace(layer.found, mean_stimulus=None, strongest_stimulus=None)
    drawn = atlas.draw(layer._replace(found=bare, filters=None, inactive=None))
    assert [each["key"] for each in drawn.facts["columns"]] == ["mean", "stretched", "maximization"][2:]
    said = drawn.facts["channels"][0]
    assert said["statistics"]["contrast"] is None and said["statistics"]["agreement"] is None
    assert said["nearest"] == [] and said["inactive"] is None


def test_a_large_field_is_reduced(
    resnet: models.ResidualNet, tiles: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To what the image has of it: a field of 179 px on images of 64 px."""
    monkeypatch.setattr(atlas, "LOSSLESS", 179)
    deep = "layer2.3"
    found: LayerResponses = responses.collect(resnet, tiles, [deep], 2, mean_stimulus=False)[deep]
    drawn = atlas.draw(LayerFacts(tiles, found, None, IMAGENET))
    side = atlas.PHOTOGRAPH_CELL
    assert found.receptive_field.size == 179 and drawn.facts["cell"] == side
    assert drawn.facts["field"]["size"] == 179
    stimuli = decoded(drawn.stimuli)
    assert stimuli.shape == (12 * side, 2 * side, 3)
    channel = int(found.competes.nonzero()[0])
    image, _ = tiles[int(found.top_images[channel, 0])]
    np.testing.assert_array_equal(stimuli[channel * side : channel * side + 64, :64], as_bytes(image))


def test_many_channels_go_on_beside(layer: LayerFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WebP picture has an end."""
    tall = atlas.draw(layer)
    monkeypatch.setattr(atlas, "TALLEST", 4 * 27)
    wide = atlas.draw(layer)
    assert (tall.facts["rows"], wide.facts["rows"]) == (6, 4)
    columns = len(tall.facts["columns"])
    one, two = decoded(tall.cells), decoded(wide.cells)
    assert two.shape == (4 * 27, 2 * columns * 27, 3)
    for channel in range(6):
        block = two.reshape(4, 27, 2, columns, 27, 3)[channel % 4, :, channel // 4]
        np.testing.assert_array_equal(block, one.reshape(6, 27, columns, 27, 3)[channel])


def test_maps_say_where_a_channel_fires(layer: LayerFacts) -> None:
    fires = torch.zeros(16, 16)
    fires[3, 5], fires[4, 5] = layer.found.maximum[2], layer.found.maximum[2] / 2
    image = int(layer.found.top_images[2, 0])
    drawn = atlas.draw(layer._replace(maps={(image, 2): fires}))
    (said,) = [each for each in drawn.facts["channels"][2]["stimuli"] if len(each) > 7]
    left, top, width, height = said[7:]
    assert (width, height) == (16, 16) and drawn.facts["sources"][said[1]]["image"] == image
    sheet = decoded(drawn.maps)[top : top + 16, left : left + 16]
    assert sheet[3, 5].tolist() == [*atlas.FIRES, 255] and abs(int(sheet[4, 5, 3]) - 128) < 5
    assert (sheet[..., 3] > 0).sum() == 2


def test_images_without_labels_and_of_other_shapes(resnet: models.ResidualNet) -> None:
    images = torch.rand(3, 3, 40, 80, generator=torch.Generator().manual_seed(0))
    found = responses.collect(resnet, images, ["maxpool"], 2)["maxpool"]
    drawn = atlas.draw(LayerFacts(images, found, maximization.maximize(resnet, "maxpool", steps=1), IMAGENET))
    for source in drawn.facts["sources"]:
        assert source["class"] is None
        assert (source["height"], source["width"]) == (40, 80)


def test_the_same_layer_gives_the_same_files(layer: LayerFacts) -> None:
    first, second = atlas.draw(layer), atlas.draw(layer)
    assert first[:-1] == second[:-1]
    assert first.facts == second.facts
