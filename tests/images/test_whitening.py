"""Whitening against numpy, and the way back."""

import json

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from rfviz.errors import RfvizError
from rfviz.images import photographs, whitening
from rfviz.images.whitening import Whitening

NAMES = ("astronaut", "coffee", "rocket", "camera")


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    """Photographs of different sizes, uint8 (3, H, W)."""
    return [photographs.photograph(name) for name in NAMES]


@pytest.fixture(scope="module")
def pixels(images) -> np.ndarray:
    """Every pixel of them in one table, RGB in [0, 1]: (pixels, 3)."""
    return np.concatenate([image.numpy().reshape(3, -1).T for image in images]) / 255


def whitened_pixels(fitted: Whitening, images: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([fitted(image.double() / 255).reshape(3, -1).T.numpy() for image in images])


def test_channel_is_minus_the_mean_over_the_standard_deviation(images, pixels):
    fitted = whitening.fit(images, "channel")
    np.testing.assert_allclose(fitted.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(fitted.matrix, np.diag(1 / pixels.std(0)), rtol=1e-9)
    got = whitened_pixels(fitted, images)
    np.testing.assert_allclose(got, (pixels - pixels.mean(0)) / pixels.std(0), rtol=1e-9, atol=1e-9)


def test_zca_decorrelates_and_stays_as_near_as_it_can(images, pixels):
    fitted = whitening.fit(images, "zca")
    covariance = np.cov(pixels.T, bias=True)
    axes, variances, _ = np.linalg.svd(covariance)
    np.testing.assert_allclose(fitted.matrix, axes @ np.diag(variances**-0.5) @ axes.T, rtol=1e-6)
    got = whitened_pixels(fitted, images)
    np.testing.assert_allclose(got.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(got.T, bias=True), np.eye(3), atol=1e-6)
    assert np.abs(np.corrcoef(pixels.T)[0, 1]) > 0.5  # there was something to decorrelate


def test_none_leaves_rgb_alone(images):
    fitted = whitening.fit(images, "none")
    rgb = images[0].float() / 255
    assert torch.equal(fitted(rgb), rgb)
    assert fitted(rgb).data_ptr() != rgb.data_ptr()
    assert torch.equal(fitted.to_rgb(rgb), rgb)


def test_imagenet_is_torchvisions_normalization(images):
    from torchvision.transforms import v2

    rgb = images[0].float() / 255
    normalized = v2.functional.normalize(rgb, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(whitening.IMAGENET(rgb), normalized)


def test_fit_takes_floats_and_bytes_alike(images):
    from_bytes, from_floats = whitening.fit(images), whitening.fit([image.float() / 255 for image in images])
    torch.testing.assert_close(from_bytes.mean, from_floats.mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(from_bytes.matrix, from_floats.matrix, rtol=1e-5, atol=0)


def test_fit_counts_pixels_not_images(images):
    whole = whitening.fit(images, "zca")
    pieces = [part for image in images for part in image.split(100, dim=2)]
    torch.testing.assert_close(whitening.fit(iter(pieces), "zca").matrix, whole.matrix)


def test_fit_is_the_channel_kind_by_default(images):
    assert torch.equal(whitening.fit(images).matrix, whitening.fit(images, "channel").matrix)


colours = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@settings(deadline=None)
@given(st.lists(colours, min_size=2, max_size=6), st.sampled_from(whitening.KINDS))
def test_to_rgb_is_the_inverse(rows, kind):
    image = torch.tensor(rows, dtype=torch.float64).T.reshape(3, 1, -1)
    fitted = whitening.fit([image], kind)
    torch.testing.assert_close(fitted.to_rgb(fitted(image)), image, rtol=0, atol=1e-9)
    code = image * 10 - 5  # any point of whitened space, most of them outside RGB
    torch.testing.assert_close(fitted(fitted.to_rgb(code, clip=False)), code, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", whitening.KINDS)
def test_batches_and_single_images_in_float32(kind, images, some_tiles):
    fitted = whitening.fit(images, kind)
    batch = fitted(some_tiles)
    assert batch.dtype == torch.float32 and batch.shape == some_tiles.shape
    for i, tile in enumerate(some_tiles):
        torch.testing.assert_close(batch[i], fitted(tile))
        expected = fitted.matrix.numpy() @ (tile.double().numpy().reshape(3, -1) - fitted.mean.numpy()[:, None])
        np.testing.assert_allclose(fitted(tile).numpy().reshape(3, -1), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fitted.to_rgb(batch), some_tiles, rtol=0, atol=1e-5)


def test_to_rgb_clips_to_what_a_screen_shows(images):
    fitted = whitening.fit(images)
    far = torch.full((3, 2, 2), 9.0)
    assert torch.equal(fitted.to_rgb(far), torch.ones(3, 2, 2))
    assert torch.equal(fitted.to_rgb(-far), torch.zeros(3, 2, 2))
    assert (fitted.to_rgb(far, clip=False) > 1).all()
    torch.testing.assert_close(fitted.to_rgb(torch.zeros(3, 1, 1)).flatten(), fitted.mean.float())  # zero: mean colour


@pytest.mark.parametrize("kind", ["channel", "zca"])
def test_images_of_one_colour_become_zero(kind):
    image = torch.tensor([0.3, 0.6, 0.9]).reshape(3, 1, 1).expand(3, 5, 7)
    fitted = whitening.fit([image, image], kind)
    assert fitted.matrix.isfinite().all()
    torch.testing.assert_close(fitted(image.double()), torch.zeros(3, 5, 7).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(fitted.to_rgb(fitted(image)), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["channel", "zca"])
def test_grey_images_have_a_way_back(kind):
    grey = photographs.photograph("camera").float() / 255
    fitted = whitening.fit([grey], kind)
    torch.testing.assert_close(fitted.to_rgb(fitted(grey.double())), grey.double(), rtol=0, atol=1e-9)
    if kind == "channel":
        assert fitted(grey).std() == pytest.approx(1, abs=1e-4)


def test_json_keeps_every_digit(images):
    fitted = whitening.fit(images, "zca")
    back = Whitening.from_json(json.loads(json.dumps(fitted.to_json())))
    assert torch.equal(back.mean, fitted.mean)
    assert torch.equal(back.matrix, fitted.matrix)


def test_an_unknown_kind_is_refused(images):
    with pytest.raises(RfvizError, match=r"unknown whitening 'chanel'\. Did you mean 'channel'\?"):
        whitening.fit(images, "chanel")


def test_no_images_are_refused():
    with pytest.raises(RfvizError, match="no images"):
        whitening.fit([])


def test_one_number_for_all_colours_does_for_grey_images():
    grey = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    made = whitening.of(([0.2], [0.5]))
    torch.testing.assert_close(made(grey), (grey - 0.2) / 0.5)
    torch.testing.assert_close(made.to_rgb(made(grey)), grey)
    with pytest.raises(RfvizError, match="images have 1 channels, but preprocess is made for 3"):
        whitening.of("imagenet")(grey)


def test_weights_of_torchvision_say_how_they_normalise():
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    assert whitening.of(weights).mean.tolist() == whitening.of("imagenet").mean.tolist()


def test_numbers_for_8_bits_are_told():
    with pytest.raises(RfvizError, match=r"images are in \[0, 1\], so divide means and standard deviations by 255"):
        whitening.of(([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]))
