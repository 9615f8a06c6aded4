"""The first page shows the channels with the highest contrast."""

import numpy as np
import torch

from rfviz.images.data import Evaluation
from rfviz.images.whitening import NONE
from rfviz.kernels import maximization, responses
from rfviz.nets import models
from rfviz.pages import landing
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
    figure = landing.poster(landing.Shown("conv. layer 3", tiles, found, driven, NONE), channels=3)
    assert [ax.get_title() for ax in figure.axes[:3]] == [f"channel {channel}" for channel in best]
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
    figure = landing.poster(landing.Shown("first pooling layer", tiles, found, driven, NONE), channels=3)
    assert [len(ax.get_images()) for ax in figure.axes] == [0] * 6 + [1] * 3
