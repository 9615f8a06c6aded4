"""What the pages have in common: how pictures are scaled."""

import pytest
import torch

from rfviz.pages import style


def test_stretch_takes_the_mean_colour_off_and_uses_one_gain() -> None:
    image = torch.full((3, 4, 4), 0.6)
    image[0, 1, 1] += 0.1
    stretched, gain = style.stretch(image)
    centred = image - image.mean(dim=(1, 2), keepdim=True)
    assert gain == pytest.approx(0.5 / centred.abs().max().item())
    torch.testing.assert_close(stretched, 0.5 + gain * centred)
    assert stretched.max() == pytest.approx(1.0)
    assert style.stretch(torch.full((3, 4, 4), 0.3))[1] == 0.0


def test_min_max_is_joint_over_colours() -> None:
    image = torch.tensor([[[0.0]], [[1.0]], [[4.0]]])
    assert style.min_max(image).flatten().tolist() == [0.0, 0.25, 1.0]
    assert style.min_max(torch.full((3, 2, 2), 7.0)).unique().tolist() == [0.5]
