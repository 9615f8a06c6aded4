"""What the pages have in common: how pictures are scaled."""

import pytest
import torch

from rfviz.kernels.tuning import centre_surround
from rfviz.pages import style


def test_stretch_uses_one_gain_around_grey() -> None:
    deviation = torch.zeros(3, 4, 4)
    deviation[0, 1, 1], deviation[2, 3, 3] = 0.1, -0.05
    stretched, gain = style.stretch(deviation)
    assert gain == pytest.approx(5.0)
    torch.testing.assert_close(stretched, 0.5 + 5 * deviation)
    assert style.stretch(torch.zeros(3, 4, 4))[1] == 0.0


def test_a_red_spot_on_grey_stays_red_on_grey() -> None:
    """It has no surround, neither for the eye nor for the detector of opponent colours."""
    place = torch.arange(27) - 13
    spot = 0.02 * (place[:, None] ** 2 + place**2 < 30)
    picture, patch = torch.full((3, 27, 27), 0.5), torch.full((3, 27, 27), 0.5)
    picture[0] += spot
    shown, gain = style.stretch(picture - patch)
    assert gain == pytest.approx(25) and (shown[:, spot == 0] == 0.5).all()
    assert (shown[0, spot > 0] == 1).all() and (shown[1:, spot > 0] == 0.5).all()
    own, _ = style.stretch(picture - picture.mean((1, 2), keepdim=True))  # minus its own mean colour
    grey = torch.full((3,), 0.5)
    measured = centre_surround.measure(torch.stack([shown, own]), grey)
    assert measured.index[0] == 0 and not measured.colour_opponent[0]
    assert measured.index[1] > 0.05  # the painted surround opposes the spot


def test_what_was_never_counted_is_grey() -> None:
    shown = style.covered(torch.ones(3, 2, 2), torch.tensor([[0, 1], [2, 0]]))
    assert shown[0].tolist() == [[pytest.approx(style.NO_IMAGE), 1.0], [1.0, pytest.approx(style.NO_IMAGE)]]


def test_min_max_is_joint_over_colours() -> None:
    image = torch.tensor([[[0.0]], [[1.0]], [[4.0]]])
    assert style.min_max(image).flatten().tolist() == [0.0, 0.25, 1.0]
    assert style.min_max(torch.full((3, 2, 2), 7.0)).unique().tolist() == [0.5]
