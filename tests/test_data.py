"""Images in memory, the evaluation transform, and an augmentation that depends on nothing but (seed, epoch, index)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rfviz import photographs
from rfviz.data import Augmented, Evaluation, ImagesInMemory, keyed_seed, szegedy, training_batches

CLASSES = ("astronaut", "chelsea", "coffee")


@pytest.fixture(scope="module")
def source() -> ImagesInMemory:
    """The training parts of three photographs."""
    return ImagesInMemory([photographs.parts(photographs.photograph(name))[0] for name in CLASSES], [0, 1, 2], CLASSES)


@pytest.fixture(scope="module")
def augmented(source) -> Augmented:
    return Augmented(source, szegedy(24, window=48), seed=5, repeats=7)


def batches(images, epoch=0, batch_size=5, workers=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an epoch as one batch."""
    parts = list(training_batches(images, batch_size, epoch, workers))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def in_bytes(image: torch.Tensor) -> torch.Tensor:
    """Take an image in [0, 1] back to the bytes that it was made of."""
    assert image.min() >= 0 and image.max() <= 1
    return (image * 255).round().to(torch.uint8)


# --- images in memory ------------------------------------------------------------------------------------------------


def test_images_in_memory(source):
    assert len(source) == 3
    image, label = source[1]
    assert torch.equal(image, photographs.photograph("chelsea")[:, :, :301]) and label == 1


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


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_an_item_depends_on_seed_epoch_and_index_alone(source, augmented):
    image, label = augmented[2, 4]
    torch.manual_seed(123)
    torch.rand(7)
    assert torch.equal(augmented[2, 4][0], image)
    assert torch.equal(Augmented(source, szegedy(24, window=48), seed=5, repeats=99)[2, 4][0], image)
    assert label == 4 % 3
    # index 7 shows the same photograph as index 4
    others = [augmented[3, 4], augmented[2, 7], Augmented(source, szegedy(24, window=48), seed=6, repeats=7)[2, 4]]
    for other, other_label in others:
        assert other_label == label
        assert not torch.equal(other, image)


def test_global_random_states_are_untouched(augmented):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002  # the global state is what this is about
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for i in range(5):
        augmented[0, i]
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_the_state_comes_back_after_an_error(source):
    def fail(image):
        torch.rand(3)
        raise ValueError("no")

    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        Augmented(source, fail, seed=0)[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_of_accelerators_are_not_seeded(augmented, monkeypatch):
    """They are not put back after an item, so seeding them would make them repeat themselves."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    augmented[0, 0]
    assert seeded == []
    torch.manual_seed(0)  # as torch's own function would have done
    assert seeded == [0]


def test_workers_change_nothing(augmented):
    alone, labels = batches(augmented, epoch=3)
    for workers in (1, 2):
        images, other_labels = batches(augmented, epoch=3, workers=workers)
        assert torch.equal(images, alone)
        assert torch.equal(other_labels, labels)


def test_the_batch_size_changes_nothing(augmented):
    threes, labels = batches(augmented, batch_size=3)
    sevens, other_labels = batches(augmented, batch_size=7)
    assert torch.equal(threes, sevens)
    assert torch.equal(labels, other_labels)


def order(images, epoch, batch_size=1) -> list[int]:
    """Return the indices that an epoch visits, in its order."""
    assert {e for e, _ in training_batches(images, batch_size, epoch).sampler} == {epoch}
    return [i for _, i in training_batches(images, batch_size, epoch).sampler]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch(source, augmented):
    assert len(augmented) == 21
    first = order(augmented, 0)
    assert sorted(first) == list(range(21))
    assert first != list(range(21))
    assert order(augmented, 0) == first
    other_seed = Augmented(source, szegedy(24, window=48), seed=6, repeats=7)
    assert sorted(order(augmented, 1)) == sorted(order(other_seed, 0)) == list(range(21))
    assert len({tuple(order(augmented, 0)), tuple(order(augmented, 1)), tuple(order(other_seed, 0))}) == 3


def test_batches_hold_the_items_in_that_order(augmented):
    images, labels = batches(augmented, epoch=1, batch_size=7)
    visited = order(augmented, 1)
    assert images.shape == (21, 3, 24, 24) and images.dtype == torch.float32
    for image, label, i in zip(images, labels, visited, strict=True):
        expected, expected_label = augmented[1, i]
        assert torch.equal(image, expected)
        assert label == expected_label == i % 3


def test_a_short_last_batch_is_left_out_unless_it_is_the_only_one(augmented):
    assert [len(labels) for _, labels in training_batches(augmented, 8, 0)] == [8, 8]
    assert [len(labels) for _, labels in training_batches(augmented, 22, 0)] == [21]
    assert [len(labels) for _, labels in training_batches(augmented, 21, 0)] == [21]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_a_keyed_seed_is_64_bits_and_depends_on_every_part(key):
    seed = keyed_seed(*key)
    assert 0 <= seed < 2**64
    assert seed == keyed_seed(*key)
    for i in range(len(key)):
        assert keyed_seed(*key[:i], key[i] + 1, *key[i + 1 :]) != seed


def test_neighbouring_keys_give_unrelated_seeds():
    seeds = [keyed_seed(seed, epoch, i) for seed in range(4) for epoch in range(4) for i in range(64)]
    assert len(set(seeds)) == len(seeds)
    ones = np.array([[seed >> bit & 1 for bit in range(64)] for seed in seeds])
    assert abs(ones.mean(0) - 0.5).max() < 4.5 * 0.5 / len(seeds) ** 0.5  # each bit is a fair coin


# --- what the augmentation does --------------------------------------------------------------------------------------

# Red tells the row and green the column, so that a crop shows where it was taken: 128 x 128 px, two px per step.
MAP = torch.stack(
    [
        torch.arange(128, dtype=torch.uint8)[:, None].expand(128, 128) * 2,
        torch.arange(128, dtype=torch.uint8)[None, :].expand(128, 128) * 2,
        torch.zeros(128, 128, dtype=torch.uint8),
    ]
)


def crops(transform, count=300) -> list[torch.Tensor]:
    images = Augmented(ImagesInMemory([MAP], [0], ["map"]), transform, seed=0, repeats=count)
    return [images[0, i][0] for i in range(count)]


def spans(crop: torch.Tensor) -> tuple[float, float, bool]:
    """Return height and width of a crop of `MAP` in its px, and whether it is mirrored."""
    side = crop.shape[-1]
    rows, columns = crop[0].mean(1) * 255 / 2, crop[1].mean(0) * 255 / 2
    # Inner pixels only: the filter of a reduction is cut off at the border.
    inner, share = slice(side // 4, -side // 4), side / (side // 2 - 1)
    height, width = (float(line[inner][-1] - line[inner][0]) * share for line in (rows, columns))
    return height, abs(width), width < 0


def test_crops_have_the_area_aspect_and_flips_of_szegedy():
    measured = [spans(crop) for crop in crops(szegedy(32, distortion=0))]
    area = np.array([height * width / 128**2 for height, width, _ in measured])
    aspect = np.array([width / height for height, width, _ in measured])
    flips = sum(mirrored for *_, mirrored in measured)
    assert area.min() > 0.08 * 0.9 and area.max() < 1.02
    assert area.min() < 0.12 and area.max() > 0.9  # the whole range is used
    assert aspect.min() > 0.75 * 0.93 and aspect.max() < 4 / 3 * 1.07
    assert aspect.min() < 0.8 and aspect.max() > 1.25
    assert abs(flips - 150) < 4 * (300 / 4) ** 0.5


def test_the_area_can_be_chosen():
    area = [height * width / 128**2 for height, width, _ in map(spans, crops(szegedy(32, (0.4, 0.6), 0), 100))]
    assert 0.36 < min(area) < 0.44 and 0.56 < max(area) < 0.64


def test_a_window_bounds_the_crop():
    measured = [spans(crop) for crop in crops(szegedy(16, distortion=0, window=32), 100)]
    assert max(height for height, *_ in measured) < 33 and max(width for _, width, _ in measured) < 33
    starts = {int(crop[0].min() * 255) // 64 for crop in crops(szegedy(16, distortion=0, window=32), 100)}
    assert starts == {0, 1, 2, 3}  # windows lie everywhere


def distorted(image: torch.Tensor, distortion: float, count: int = 200) -> torch.Tensor:
    """Return whole images (count, 3, 40, 40) that only the photometric distortion and the flip have changed."""
    one = ImagesInMemory([image], [0], ["one"])
    images = Augmented(one, szegedy(40, (1, 1), distortion), seed=0, repeats=count)
    return torch.stack([images[0, i][0] for i in range(count)])


def test_without_distortion_colours_stay():
    image = photographs.photograph("astronaut")[:, 100:140, 200:240]
    for got in distorted(image, 0, 20):
        assert torch.equal(in_bytes(got), image) or torch.equal(in_bytes(got), image.flip(2))


def test_brightness_changes_within_its_bounds():
    levels = distorted(torch.full((3, 40, 40), 100, dtype=torch.uint8), 0.4) * 255
    assert levels.std((1, 2, 3)).max() < 1e-4  # contrast and saturation of an even grey stay
    assert levels.min() >= 60 - 3 and levels.max() <= 140  # three steps in bytes, each of which rounds down
    assert levels.min() < 65 and levels.max() > 135


def test_contrast_and_saturation_change_within_their_bounds():
    image = torch.empty(3, 40, 40, dtype=torch.uint8)
    image[:, :14], image[:, 14:28] = 60, 100  # two greys: saturation does nothing to their difference
    image[:, 28:] = torch.tensor([100, 80, 60], dtype=torch.uint8)[:, None, None]
    rows = distorted(image, 0.4).mean(3) * 255
    contrast = (rows[:, 0, 20] - rows[:, 0, 5]) / 40  # times brightness
    saturation = (rows[:, 0, 35] - rows[:, 2, 35]) / 40 / contrast
    assert contrast.min() >= 0.6**2 - 0.05 and contrast.max() <= 1.4**2 + 0.05
    assert contrast.min() < 0.55 and contrast.max() > 1.45  # more than brightness alone could
    assert saturation.min() >= 0.6 - 0.06 and saturation.max() <= 1.4 + 0.06
    assert saturation.min() < 0.65 and saturation.max() > 1.35


def test_colours_stay_in_range():
    images = Augmented(
        ImagesInMemory([photographs.photograph("astronaut")], [0], ["one"]), szegedy(16), seed=0, repeats=30
    )
    values = torch.stack([images[0, i][0] for i in range(30)])
    assert values.min() >= 0 and values.max() <= 1
