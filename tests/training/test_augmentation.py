"""The augmentation of whole batches against torchvision's of single images, and the arithmetic of boxes and weights."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from rfviz.images import photographs
from rfviz.images.data import Box, cut
from rfviz.training.augmentation import DRAWS, Augmentation, TrainingBatch, resizing

# What each random number of an image is for.
WINDOW, TRY, POSITION, MIRROR, FACTORS, ORDER = (slice(0, 2), slice(2, 22), slice(22, 24), 24, slice(25, 28), 28)
ASPECT = (3 / 4, 4 / 3)

NAMES = ("astronaut", "chelsea", "coffee", "retina", "rocket", "camera")
BOXES = {
    "reduction": Box(11, 7, 200, 170),
    "strong reduction of one side": Box(0, 3, 299, 40),
    "enlargement": Box(130, 61, 21, 17),
    "enlargement and reduction": Box(20, 50, 19, 220),
    "one pixel": Box(33, 44, 1, 1),
    "same size": Box(5, 6, 48, 48),
    "lower right corner": Box(100, 201, 200, 250),
}


def photograph(name: str, height: int = 300, width: int = 451) -> torch.Tensor:
    """Cut the upper left part out of a photograph: all of chelsea."""
    return photographs.photograph(name)[:, :height, :width]


def drawn(seed: int, images: int) -> torch.Tensor:
    return torch.rand(images, DRAWS, generator=torch.Generator().manual_seed(seed))


def batch(images: list[torch.Tensor], boxes: list[Box], draws: torch.Tensor | None = None) -> TrainingBatch:
    """Put images of any size into one batch, and bytes of noise where there is none."""
    sides = [max(image.shape[axis] for image in images) for axis in (1, 2)]
    pixels = torch.randint(256, (len(images), 3, *sides), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for target, image in zip(pixels, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]] = image
    draws = drawn(0, len(images)) if draws is None else draws
    return TrainingBatch(pixels, torch.tensor(boxes, dtype=torch.float32), draws, torch.zeros(len(images)).long())


def resized(image: torch.Tensor, box: Box, crop: int, mirrored: bool = False) -> torch.Tensor:
    """Return one training image without distortion."""
    return Augmentation(crop).resize(batch([image], [box]), torch.tensor([mirrored]))[0]


def torchvisions(image: torch.Tensor, box: Box, crop: int) -> torch.Tensor:
    return tv.resized_crop(image.float() / 255, *(int(side) for side in box), [crop, crop], antialias=True)


def assert_near(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# --- resizing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_a_box_is_resized_as_torchvision_does_it(box, name):
    for crop in (32, 48, 65):
        assert_near(resized(photograph(name), box, crop), torchvisions(photograph(name), box, crop), 2e-5)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_box_is_resized_as_torchvision_does_it(data):
    image = photograph("chelsea")
    top, left = data.draw(st.integers(0, 299)), data.draw(st.integers(0, 450))
    box = Box(top, left, data.draw(st.integers(1, 300 - top)), data.draw(st.integers(1, 451 - left)))
    crop = data.draw(st.integers(1, 80))
    assert_near(resized(image, box, crop), torchvisions(image, box, crop), 2e-5)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_a_mirrored_image_is_the_image_flipped(box):
    plain, mirrored = (resized(photograph("coffee"), box, 40, flip) for flip in (False, True))
    assert_near(mirrored, plain.flip(2), 1e-6)
    assert box == BOXES["one pixel"] or not torch.allclose(mirrored, plain, atol=1e-3)


def test_only_those_that_should_be_are_mirrored():
    images, boxes = [photograph(name) for name in NAMES], list(BOXES.values())[: len(NAMES)]
    mirrored = torch.tensor([True, False, False, True, True, False])
    got = Augmentation(40).resize(batch(images, boxes), mirrored)
    for each, image, box, flip in zip(got, images, boxes, mirrored, strict=True):
        expected = torchvisions(image, box, 40)
        assert_near(each, expected.flip(2) if flip else expected, 2e-5)


def triangles(start: float, extent: float, size: int, pixels: int) -> np.ndarray:
    """Return the weights one by one, in double precision: the pixels that a part touches, under a triangle."""
    scale = extent / size
    weights = np.zeros((size, pixels))
    for i in range(size):
        centre = start + (i + 0.5) * scale
        for j in range(pixels):
            if j + 1 > start and j < start + extent:
                weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


@st.composite
def parts(draw):
    """Return start and extent of a part of a line in 64ths of a pixel, and the pixels of the line."""
    pixels = draw(st.integers(1, 70))
    start = draw(st.integers(0, 64 * pixels - 1))
    extent = draw(st.integers(1, 64 * pixels - start))
    if draw(st.booleans()):  # whole pixels
        start, extent = start // 64 * 64, max(1, extent // 64) * 64
    return start / 64, extent / 64, pixels


@settings(deadline=None)
@given(part=parts(), size=st.integers(1, 40))
def test_weights_are_those_of_a_triangle_within_the_box(part, size):
    start, extent, pixels = part
    got = resizing(torch.tensor([start]), torch.tensor([extent]), size, pixels)[0].double().numpy()
    assert got.shape == (size, pixels)
    assert (got >= 0).all()
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)
    outside = np.array([j + 1 <= start or j >= start + extent for j in range(pixels)])
    assert (got[:, outside] == 0).all()
    np.testing.assert_allclose(got, triangles(start, extent, size, pixels), atol=2e-5)


def test_a_box_within_one_pixel_shows_nothing_but_that():
    image = photograph("rocket")
    for box in (Box(20.25, 30.5, 0.5, 0.25), Box(20, 30, 1, 1), Box(20.9, 30, 0.05, 1)):
        assert_near(resized(image, box, 5), (image[:, 20:21, 30:31].float() / 255).expand(3, 5, 5), 1e-6)


def test_a_box_that_covers_part_of_a_pixel_takes_it_in():
    line = torch.tensor([[0.0, 10.0, 20.0, 90.0]])
    weights = resizing(torch.tensor([0.5]), torch.tensor([2.0]), 2, 4)[0]
    # centres at 1 and 2, half-way between the first three pixels
    assert_near(weights @ line[0], torch.tensor([5.0, 15.0]), 1e-5)


def test_every_part_of_a_line_has_weights_of_its_own():
    starts, extents = torch.tensor([0.0, 3.5, 10.0]), torch.tensor([20.0, 7.25, 1.0])
    together = resizing(starts, extents, 6, 20)
    for i in range(3):
        assert torch.equal(together[i], resizing(starts[i : i + 1], extents[i : i + 1], 6, 20)[0])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_region_that_was_cut_out_gives_the_same_training_image(data):
    image = photograph("coffee", 90, 120)
    sides = []
    for length in (90, 120):
        start = data.draw(st.integers(0, 8 * length - 1))
        sides.append((start / 8, data.draw(st.integers(1, 8 * length - start)) / 8))
    box = Box(sides[0][0], sides[1][0], sides[0][1], sides[1][1])
    region = cut(image, lambda height, width: box)
    assert_near(resized(region.pixels, region.box, 24), resized(image, box, 24), 1e-5)


def test_padding_never_shows():
    """Smaller images in a batch are surrounded by what belongs to none of them."""
    images = [
        photograph(name, *size) for name, size in zip(NAMES, [(90, 20), (31, 80), (64, 64), (90, 80)], strict=False)
    ]
    boxes = [Box(0, 0, *image.shape[1:]) for image in images]
    noisy = batch(images, boxes)
    black = noisy._replace(pixels=torch.zeros_like(noisy.pixels))
    for target, image in zip(black.pixels, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]] = image
    mirrored = torch.tensor([True, False, True, False])
    assert torch.equal(Augmentation(30).resize(noisy, mirrored), Augmentation(30).resize(black, mirrored))
    for got, image, flip in zip(Augmentation(30).resize(noisy, mirrored), images, mirrored, strict=True):
        expected = torchvisions(image, Box(0, 0, *image.shape[1:]), 30)
        assert_near(got, expected.flip(2) if flip else expected, 2e-5)


@settings(deadline=None, max_examples=300)
@given(
    length=st.integers(8, 5000), share=st.floats(0, 0.95), reduced=st.sampled_from([1, 2, 4, 8]),
    size=st.integers(8, 64),
)  # fmt: skip
def test_padding_never_shows_at_the_end_of_a_reduced_image(length, share, reduced, size):
    """A JPEG file that was decoded at a fraction of its size has boxes that are rounded; some end where it ends."""
    pixels = math.ceil(length / reduced)
    start = int(share * length)
    box = Box(0, start * (pixels / length), 1, (length - start) * (pixels / length))
    region = cut(torch.zeros(3, 1, pixels, dtype=torch.uint8), lambda height, width: box)
    left, width = torch.tensor([region.box.left]), torch.tensor([region.box.width])
    read = region.pixels.shape[2]
    weights = resizing(left, width, size, read + 3)
    assert (weights[:, :, read:] == 0).all()


def test_the_size_of_the_batch_changes_nothing():
    images, boxes = [photograph(name) for name in NAMES], list(BOXES.values())[: len(NAMES)]
    draws = drawn(3, len(NAMES))
    augmentation = Augmentation(40)
    together = augmentation(batch(images, boxes, draws))
    assert together.shape == (len(NAMES), 3, 40, 40) and together.dtype == torch.float32
    for i in range(len(NAMES)):
        alone = augmentation(batch(images[i : i + 1], boxes[i : i + 1], draws[i : i + 1]))
        assert_near(alone[0], together[i], 1e-6)


# --- distortion ------------------------------------------------------------------------------------------------------

CHANGES = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)


def distorted(image: torch.Tensor, factors: torch.Tensor, order: float, distortion: float) -> torch.Tensor:
    """Distort one image by torchvision's functions, one after the other."""
    least = max(0.0, 1 - distortion)
    for which in list(itertools.permutations(range(3)))[int(order * 6)]:
        image = CHANGES[which](image, least + float(factors[which]) * (1 + distortion - least))
    return image


@pytest.mark.parametrize("distortion", [0.1, 0.4, 1.0, 1.5])
def test_distortion_is_torchvisions_in_the_drawn_order(distortion):
    images = torch.stack([tv.resize(photograph(name), [40, 60]).float() / 255 for name in NAMES] * 4)
    draws = drawn(7, len(images))
    order = torch.arange(len(images)) % 6 / 6 + 0.01  # each of the six
    got = Augmentation(40, distortion=distortion).distort(images, draws[:, FACTORS], order)
    for each, image, numbers, which in zip(got, images, draws, order, strict=True):
        assert_near(each, distorted(image, numbers[FACTORS], float(which), distortion), 1e-6)
    assert got.min() >= 0 and got.max() <= 1


def test_the_orders_differ():
    """Otherwise the test before could not tell them apart: they do where values are cut off in between."""
    image = tv.resize(photograph("astronaut"), [40, 60]).float()[None].expand(6, -1, -1, -1) / 255
    factors = torch.tensor([0.9, 0.95, 0.85]).expand(6, -1)
    got = Augmentation(40).distort(image, factors, torch.arange(6) / 6 + 0.1)
    for a, b in itertools.combinations(got, 2):
        assert (a - b).abs().max() > 1e-3


def test_no_distortion_changes_nothing():
    images = torch.stack([photograph(name, 30, 40) for name in NAMES]).float() / 255
    draws = drawn(8, len(images))
    assert torch.equal(Augmentation(30, distortion=0).distort(images, draws[:, FACTORS], draws[:, ORDER]), images)


def test_factors_reach_their_bounds_and_never_fall_below_0():
    grey = torch.full((2, 3, 4, 4), 0.5)
    least_and_largest = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.5, 0.5]])
    for distortion, levels in ((0.4, (0.3, 0.7)), (1.5, (0.0, 1.0))):
        got = Augmentation(4, distortion=distortion).distort(grey, least_and_largest, torch.zeros(2))
        assert_near(got.amax((1, 2, 3)), torch.tensor(levels), 1e-6)
        assert_near(got.amin((1, 2, 3)), torch.tensor(levels), 1e-6)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 3), st.integers(0, 2**31))
def test_values_stay_in_range(distortion, seed):
    draws = drawn(seed, 4)
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    got = Augmentation(5, distortion=distortion).distort(images, draws[:, FACTORS], draws[:, ORDER])
    assert got.min() >= 0 and got.max() <= 1


def test_the_whole_augmentation_is_torchvisions_image_by_image():
    images, boxes = [photograph(name) for name in NAMES] * 4, [list(BOXES.values())[i % 7] for i in range(24)]
    draws = drawn(9, 24)
    got = Augmentation(32)(batch(images, boxes, draws))
    for each, image, box, numbers in zip(got, images, boxes, draws, strict=True):
        expected = torchvisions(image, box, 32)
        expected = expected.flip(2) if numbers[MIRROR] < 0.5 else expected
        assert_near(each, distorted(expected, numbers[FACTORS], float(numbers[ORDER]), 0.4), 5e-5)
    assert 4 <= int((draws[:, MIRROR] < 0.5).sum()) <= 20  # both kinds were among them


# --- boxes -----------------------------------------------------------------------------------------------------------

random_numbers = st.lists(
    st.floats(0, 1, exclude_max=True, width=32), min_size=DRAWS, max_size=DRAWS
)  # as Plan.draws gives them


def sample(augmentation: Augmentation, height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    return np.array([augmentation.box(row, height, width) for row in drawn(seed, count).tolist()])


@settings(deadline=None, max_examples=300)
@given(random_numbers, st.integers(1, 600), st.integers(1, 600), st.none() | st.integers(1, 300))
def test_a_box_lies_inside_the_image_and_inside_the_window(draws, height, width, window):
    box = Augmentation(8, window=window).box(draws, height, width)
    assert all(isinstance(side, int) for side in box)
    assert box.height >= 1 and box.width >= 1
    rows, columns = (height, width) if window is None else (min(window, height), min(window, width))
    top, left = int(draws[0] * (height - rows + 1)), int(draws[1] * (width - columns + 1))
    assert 0 <= top <= box.top and box.top + box.height <= top + rows <= height
    assert 0 <= left <= box.left and box.left + box.width <= left + columns <= width


@settings(deadline=None, max_examples=300)
@given(random_numbers, st.integers(1, 600), st.integers(1, 600))
def test_area_and_aspect_are_within_szegedys_bounds(draws, height, width):
    assume(0.5 <= width / height <= 2)  # more extreme images hold no crop of the larger areas
    _, _, h, w = Augmentation(8).box(draws, height, width)
    # up to the rounding to whole pixels
    assert (h + 0.5) * (w + 0.5) >= 0.08 * height * width
    assert (w + 0.5) / (h - 0.5) >= ASPECT[0]
    assert (w - 0.5) / (h + 0.5) <= ASPECT[1]


def test_the_whole_range_of_area_and_aspect_is_used():
    boxes = sample(Augmentation(8), 500, 500, 2000)
    share, aspect = boxes[:, 2] * boxes[:, 3] / 500**2, boxes[:, 3] / boxes[:, 2]
    assert 0.079 < share.min() < 0.09 and 0.97 < share.max() <= 1
    assert 0.745 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.34


def test_the_area_can_be_chosen():
    boxes = sample(Augmentation(8, area=(0.4, 0.6)), 500, 500, 500)
    share = boxes[:, 2] * boxes[:, 3] / 500**2
    assert 0.398 < share.min() < 0.41 and 0.59 < share.max() < 0.602


def test_the_first_crop_that_fits_is_taken():
    draws = [0.5] * DRAWS
    draws[TRY] = [0.999, 0.0] + [0.999, 0.999] + [0.2, 0.5] + [0.7, 0.5] * 7  # too high, too wide, a square, another
    _, _, height, width = Augmentation(8).box(draws, 400, 400)
    assert height == width == round(400 * math.sqrt(0.08 + 0.2 * 0.92))


@pytest.mark.parametrize(
    "size", [(300, 300), (299, 100), (100, 299), (401, 300), (300, 401), (400, 300), (7, 1), (1, 9)]
)
def test_the_central_crop_is_torchvisions_where_none_fits(size):
    impossible = (5.0, 5.0)  # five times the image
    top, left, h, w = RandomResizedCrop.get_params(torch.empty(3, *size), list(impossible), list(ASPECT))
    assert Augmentation(8, area=impossible).box([0.3] * DRAWS, *size) == Box(top, left, h, w)
    height, width = size
    if width / height < ASPECT[0]:
        assert (h, w) == (round(width / ASPECT[0]), width)
    elif width / height > ASPECT[1]:
        assert (h, w) == (height, round(height * ASPECT[1]))
    else:
        assert (h, w) == size
    assert (top, left) == ((height - h) // 2, (width - w) // 2)


def test_the_central_crop_lies_in_the_middle_of_the_window():
    draws = [0.0] * DRAWS
    draws[WINDOW] = [0.5, 0.999]
    box = Augmentation(8, area=(5, 5), window=60).box(draws, 160, 50)  # the window is 60 x 50: 50, all of it
    assert box == Box(int(0.5 * 101), 0, 60, 50)
    box = Augmentation(8, area=(5, 5), window=60).box(draws, 160, 30)
    assert box == Box(int(0.5 * 101) + 10, 0, 40, 30)


def test_every_position_is_as_likely_as_any_other():
    draws = [0.5] * DRAWS
    draws[TRY] = [0.0, 0.5] * 10
    side = round(40 * math.sqrt(0.08))
    places = 40 - side + 1
    for axis in (0, 1):
        found = []
        for k in range(10 * places):
            draws[POSITION] = [0.5, 0.5]
            draws[POSITION.start + axis] = (k + 0.5) / (10 * places)
            box = Augmentation(8).box(draws, 40, 40)
            assert (box.height, box.width) == (side, side) and box[1 - axis] == int(0.5 * places)
            found.append(box[axis])
        assert found == [place for place in range(places) for _ in range(10)]


def test_every_window_is_as_likely_as_any_other():
    draws = [0.5] * DRAWS
    draws[TRY] = [0.99999, 0.5] * 10  # all of the window
    for axis in (0, 1):
        found = []
        for k in range(10 * 21):
            draws[WINDOW] = [0.5, 0.5]
            draws[axis] = (k + 0.5) / 210
            found.append(Augmentation(8, window=30).box(draws, 50, 50)[axis])
        assert found == [place for place in range(21) for _ in range(10)]


@pytest.mark.parametrize("size", [(300, 300), (300, 451), (500, 333), (120, 400)])
def test_boxes_are_distributed_as_torchvisions(size):
    """Area, aspect and both positions, of which the last size often needs the central crop."""
    height, width = size
    count = 4000
    ours = sample(Augmentation(8), *size, count, seed=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        image = torch.empty(3, *size)
        theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], list(ASPECT)) for _ in range(count)])

    def described(boxes):
        top, left, h, w = boxes.T
        return {"area": h * w / (height * width), "aspect": w / h, "top": (top + h / 2) / height,
                "left": (left + w / 2) / width}  # fmt: skip

    for (what, a), b in zip(described(ours).items(), described(theirs).values(), strict=True):
        error = math.sqrt((a.var() + b.var()) / count)
        assert abs(a.mean() - b.mean()) < 4 * error, what
        values = np.sort(np.concatenate([a, b]))
        below = [np.searchsorted(np.sort(each), values, side="right") / count for each in (a, b)]
        assert np.abs(below[0] - below[1]).max() < 1.95 * math.sqrt(2 / count), what  # Kolmogorov-Smirnov, p = 0.001


def test_a_box_depends_on_no_other_chance():
    draws = drawn(4, 1)[0].tolist()
    torch.manual_seed(1)
    first = Augmentation(8).box(draws, 300, 400)
    torch.manual_seed(2)
    assert Augmentation(8).box(draws, 300, 400) == first
