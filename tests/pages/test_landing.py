"""The first pages show channels that keep their feature, and channels with the highest contrast."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from rfviz.images.data import Evaluation
from rfviz.images.whitening import NONE
from rfviz.kernels import maximization, responses
from rfviz.nets import models
from rfviz.pages import landing
from rfviz.pages.evidence import reference
from rfviz.pages.style import stretch


def test_the_poster_shows_the_channels_with_the_highest_contrast(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    found = responses.collect(resnet, tiles, ["layer1.0"], strongest=8)["layer1.0"]
    driven = maximization.maximize(resnet, "layer1.0", steps=3)
    driven.activations[-1, 1] = -1  # as if this picture did not drive its channel
    means = found.strongest_deviation
    contrast = (means - means.mean((2, 3), keepdim=True)).abs().amax((1, 2, 3))
    drives = (found.competes & (driven.activations[-1] >= found.top_values[:, 0])).tolist()
    assert any(drives) and not all(drives)
    best = sorted(sorted(range(6), key=lambda channel: (not drives[channel], -contrast[channel]))[:3])
    figure = landing.poster(landing.Shown(resnet.network, "layer1.0", tiles, found, driven, NONE), channels=3)
    assert [ax.get_title() for ax in figure.axes[:3]] == [f"channel {channel}" for channel in best]
    addresses = [link.address for link in figure.links()]
    assert addresses == [f"explorer.html#{resnet.network.name}/layer1.0/{channel}" for channel in best]
    shown = [np.asarray(image.get_array()) for ax in figure.axes for image in ax.get_images()]
    assert len(shown) == 9
    for i, channel in enumerate(best):
        np.testing.assert_array_equal(shown[3 + i], stretch(means[channel])[0].permute(1, 2, 0).numpy())
        np.testing.assert_array_equal(shown[6 + i], driven.images[channel].clamp(0, 1).permute(1, 2, 0).numpy())


def test_a_channel_that_never_fires_has_only_its_maximization_image(
    resnet: models.ResidualNet, tiles: Evaluation
) -> None:
    torch.nn.init.zeros_(resnet.bn1.weight)
    torch.nn.init.constant_(resnet.bn1.bias, -1)
    found = responses.collect(resnet, tiles, ["maxpool"], strongest=8)["maxpool"]
    driven = maximization.maximize(resnet, "maxpool", steps=1)
    figure = landing.poster(landing.Shown(resnet.network, "maxpool", tiles, found, driven, NONE), channels=3)
    assert [len(ax.get_images()) for ax in figure.axes] == [0] * 6 + [1] * 3


@pytest.mark.parametrize("layer", ["maxpool", "layer1.0", "layer1.1"])
def test_pictures_of_a_sheet_are_those_that_were_put_on_it(tmp_path: Path, layer: str) -> None:
    side = {"maxpool": 11, "layer1.0": 27, "layer1.1": 43}[layer]
    images = torch.randint(0, 256, (12, 3, side, side), generator=torch.Generator().manual_seed(0)) / 255
    Image.fromarray(reference.sheet([*images])).save(tmp_path / f"resnet18-{layer}-mean.png")
    found = reference.Reference({}, {}, {"resnet18": [SimpleNamespace(channels=12)]}, tmp_path)
    torch.testing.assert_close(found.sheet("resnet18", f"{layer}-mean"), images)


def test_channels_that_keep_their_feature_and_silent_ones_are_the_first_thing(tmp_path: Path) -> None:
    """Planted: of 12 channels, 3 and 8 are the same in all layers, 1 and 5 never fire, 10 does too rarely."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"maxpool": 11, "layer1.0": 27, "layer1.1": 43}
    folder = tmp_path / "resnet18"
    folder.mkdir()
    core = torch.rand(12, 3, 11, 11, generator=generator)
    for layer, side in sizes.items():
        images = torch.rand(12, 3, side, side, generator=generator)
        begin = (side - 11) // 2
        for channel in (3, 8):
            images[channel] = 0.5
            images[channel, :, begin : begin + 11, begin : begin + 11] = core[channel]
        silent = (1, 5, 10) if layer == "maxpool" else ()
        sheet = reference.sheet([None if channel in silent else image for channel, image in enumerate(images)])
        Image.fromarray(sheet).save(folder / f"resnet18-{layer}-strongest.png")
    drawn = torch.rand(12, 3, 43, 43, generator=generator)
    Image.fromarray(reference.sheet([*drawn])).save(folder / "resnet18-layer1.1-maximization.png")
    left_out = {layer: [1, 5, 10] if layer == "maxpool" else [] for layer in sizes}
    facts = {"networks": {"resnet18": []}, "left out": {"resnet18": left_out}}
    effects = {"resnet18": [SimpleNamespace(channels=12, inactive=(1, 5))]}
    figure = landing.hero(reference.Reference(facts, {}, effects, folder), channels=2)
    assert [ax.get_title() for ax in figure.axes[:4]] == ["ch. 3", "ch. 8", "ch. 1", "ch. 5"]
    assert [len(ax.get_images()) for ax in figure.axes] == [1, 1, 0, 0] + 12 * [1]
    (picture,) = figure.axes[-4].get_images()
    np.testing.assert_allclose(picture.get_array(), drawn[3].permute(1, 2, 0), atol=1 / 255)
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == 2 * ["never\nfires"]
    assert [link.address for link in figure.links()] == [
        f"explorer.html#imagenet-resnet18/{layer}/{channel}" for layer in sizes for channel in (3, 8, 1, 5)
    ]
