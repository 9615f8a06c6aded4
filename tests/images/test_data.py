"""Images in memory, the evaluation transform, and parts of images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rfviz.images import photographs
from rfviz.images.data import Box, Evaluation, ImagesInMemory, Region, cut, region

CLASSES = ("astronaut", "chelsea", "coffee")


@pytest.fixture(scope="module")
def source() -> ImagesInMemory:
    """The training parts of three photographs."""
    return ImagesInMemory([photographs.parts(photographs.photograph(name))[0] for name in CLASSES], [0, 1, 2], CLASSES)


def in_bytes(image: torch.Tensor) -> torch.Tensor:
    """Take an image in [0, 1] back to the bytes that it was made of."""
    assert image.min() >= 0 and image.max() <= 1
    return (image * 255).round().to(torch.uint8)


# --- images in memory ------------------------------------------------------------------------------------------------


def test_images_in_memory(source):
    assert len(source) == 3
    image, label = source[1]
    assert torch.equal(image, photographs.photograph("chelsea")[:, :, :301]) and label == 1


def test_images_in_memory_say_so(source):
    assert source.in_memory is ImagesInMemory.in_memory is True


def test_the_fingerprint_is_one_of_pixels_labels_and_names(source):
    images = [image.clone() for image in source.images]
    assert ImagesInMemory(images, [0, 1, 2], CLASSES).fingerprint == source.fingerprint
    views = [image.transpose(1, 2).contiguous().transpose(1, 2) for image in images]  # the same in another order
    assert ImagesInMemory(views, (0, 1, 2), list(CLASSES)).fingerprint == source.fingerprint

    images[2][1, 3, 4] ^= 1
    others = [
        ImagesInMemory(images, [0, 1, 2], CLASSES),
        ImagesInMemory(source.images, [0, 2, 1], CLASSES),
        ImagesInMemory(source.images, [0, 1, 2], ("astronaut", "cat", "coffee")),
        ImagesInMemory(source.images[::-1], [0, 1, 2], CLASSES),
        ImagesInMemory([image.reshape(3, image.shape[2], -1) for image in source.images], [0, 1, 2], CLASSES),
        ImagesInMemory(source.images[:2], [0, 1, 2], CLASSES),
    ]
    assert len({source.fingerprint, *(other.fingerprint for other in others)}) == 7


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_evaluation_leaves_images_whole_unless_told(source):
    evaluation = Evaluation(source)
    image, label = evaluation[2]
    assert (image.dtype, label, len(evaluation)) == (torch.float32, 2, 3)
    assert torch.equal(in_bytes(image), source.images[2])
    torch.testing.assert_close(image, source.images[2].float() / 255)
    assert (evaluation.labels, evaluation.classes) == (source.labels, CLASSES)


def test_evaluation_reduces_the_short_side_and_cuts_the_centre(source):
    evaluation = Evaluation(source, short_side=80, crop=60)
    for i, whole in enumerate(source.images):
        height, width = whole.shape[1:]
        scale = 80 / min(height, width)
        size = int(width * scale), int(height * scale)
        reduced = np.asarray(Image.fromarray(whole.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BILINEAR))
        top, left = round((size[1] - 60) / 2), round((size[0] - 60) / 2)
        expected = reduced[top : top + 60, left : left + 60]
        got = (evaluation[i][0] * 255).permute(1, 2, 0).numpy()
        assert got.shape == (60, 60, 3)
        np.testing.assert_allclose(got, expected, atol=1.01)  # two libraries may round one step apart


def test_the_central_crop_is_exact_without_a_reduction(source):
    image = Evaluation(source, crop=100)[1][0]
    height, width = source.images[1].shape[1:]
    top, left = (height - 100) // 2, round((width - 100) / 2)
    assert torch.equal(in_bytes(image), source.images[1][:, top : top + 100, left : left + 100])


def test_evaluation_does_not_depend_on_chance(source):
    evaluation = Evaluation(source, 80, 60)
    torch.manual_seed(1)
    first = evaluation[0][0]
    torch.manual_seed(2)
    assert torch.equal(evaluation[0][0], first)


def test_the_fingerprint_of_an_evaluation_tells_its_geometry(source):
    prints = {Evaluation(source, *sides).fingerprint for sides in [(None, None), (80, None), (80, 60), (None, 60)]}
    assert len(prints) == 4
    assert Evaluation(source, 80, 60).fingerprint == Evaluation(source, 80, 60).fingerprint
    other = ImagesInMemory(source.images, [0, 2, 1], CLASSES)
    assert Evaluation(other, 80, 60).fingerprint != Evaluation(source, 80, 60).fingerprint


# --- parts of images -------------------------------------------------------------------------------------------------


@st.composite
def boxes(draw, height: int, width: int) -> Box:
    """Return a box within an image, in quarters of a pixel."""
    top, left = draw(st.integers(0, 4 * height - 1)), draw(st.integers(0, 4 * width - 1))
    down, right = draw(st.integers(1, 4 * height - top)), draw(st.integers(1, 4 * width - left))
    return Box(top / 4, left / 4, down / 4, right / 4)


@given(st.data())
def test_a_cut_holds_the_pixels_that_the_box_touches_and_no_others(data):
    image = photographs.photograph("chelsea")[:, :30, :40]
    box = data.draw(boxes(30, 40))
    found = cut(image, lambda height, width: box)
    rows = [i for i in range(30) if i + 1 > box.top and i < box.top + box.height]
    columns = [j for j in range(40) if j + 1 > box.left and j < box.left + box.width]
    assert torch.equal(found.pixels, image[:, rows][:, :, columns])
    assert found.box == (box.top - rows[0], box.left - columns[0], box.height, box.width)
    assert 0 <= found.box.top < 1 and 0 <= found.box.left < 1


def test_a_cut_is_no_copy(source):
    image = source.images[1]
    found = cut(image, lambda height, width: Box(2, 3, 10, 20))
    assert found.pixels.dtype == torch.uint8
    assert found.pixels.data_ptr() == image[:, 2:, 3:].data_ptr()
    whole = cut(image, lambda height, width: Box(0, 0, height, width))
    assert torch.equal(whole.pixels, image) and whole.box == (0, 0, *image.shape[1:])


def test_a_region_is_cut_out_of_the_image_where_the_source_knows_no_better(source):
    for i, image in enumerate(source.images):
        asked = []

        def choose(height, width, asked=asked):
            asked.append((height, width))
            return Box(height // 3, width // 2, height // 4, width // 2)

        found = region(source, i, choose, side=8)
        height, width = image.shape[1:]
        assert asked == [(height, width)]
        rows, columns = slice(height // 3, height // 3 + height // 4), slice(width // 2, width // 2 * 2)
        assert torch.equal(found.pixels, image[:, rows, columns])
        assert found.box == (0, 0, height // 4, width // 2)


def test_a_source_may_have_a_region_of_its_own(source):
    class Own:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise AssertionError("the whole image is not needed")

        def region(self, index, choose, side):
            return Region(source.images[index][:, :side, :side], choose(side, index))

    found = region(Own(), 2, lambda height, width: Box(1, 1, height, width), 7)
    assert torch.equal(found.pixels, source.images[2][:, :7, :7])
    assert found.box == (1, 1, 7, 2)
