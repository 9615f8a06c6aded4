"""Sums of patches against a loop over the patches."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import LAYOUTS, bits, brute_mean

from rfviz.kernels.responses import patch_sums
from rfviz.kernels.responses.cores import ALONE
from rfviz.kernels.responses.patch_sums import MIDDLE, Phases, Workspace, positive, summed_grid, summed_patches
from rfviz.nets import models, receptive_field
from rfviz.nets.receptive_field import ReceptiveField


def brute_sums(images, chosen, field):
    """Sums (C, 3, R, R) of the patches of image - MIDDLE of the neurons (N, C, h, w) that are > 0, and counts."""
    found = []
    for channel in range(chosen.shape[1]):
        neurons = (chosen[:, channel] > 0).nonzero().tolist()
        mean, count = brute_mean(images.double(), neurons, (field.size, field.stride, field.start))
        found.append(((mean - MIDDLE) * count, count))
    sums, counts = zip(*found, strict=True)
    return np.stack(sums), np.stack(counts)


def seen(field, neurons, pixels):
    """Rows of the field in which some neuron of the map sees a pixel of the image."""
    tops = [field.stride * y + field.start for y in range(neurons)]
    return [u for u in range(field.size) if any(0 <= top + u < pixels for top in tops)]


def assert_sums_are(phases, images, chosen, field):
    """Compare sums and window with the loop: float64 to 1e-10, float32 to 1e-5 per patch that has the pixel."""
    sums, neurons, top, left = summed_patches(phases, chosen, field)
    assert neurons.tolist() == (chosen > 0).sum(0).tolist()
    expected, counts = brute_sums(images, chosen, field)
    assert sums.dtype == images.dtype and sums.shape[:2] == (chosen.shape[1], 3)
    rows, columns = sums.shape[2:]
    axes = zip((top, left), (rows, columns), chosen.shape[2:], images.shape[2:], strict=True)
    for begin, length, neurons, pixels in axes:
        there = seen(field, neurons, pixels)
        assert 0 <= begin <= begin + length <= field.size
        assert begin <= there[0] < begin + field.stride if there else length < field.stride
        assert begin + length - field.stride <= there[-1] < begin + length if there else True
    whole = np.zeros_like(expected)
    whole[:, :, top : top + rows, left : left + columns] = sums.numpy()
    allowed = 1e-10 if images.dtype == torch.float64 else 1e-5 * np.maximum(counts, 1)[:, None]
    assert (abs(whole - expected) <= allowed).all()


fields = st.builds(ReceptiveField, size=st.integers(1, 40), stride=st.integers(1, 8), start=st.integers(-45, 9))


@st.composite
def cases(draw, most=6):
    """Images, a field, and neurons of several channels: the number of images, sizes, and shares of chosen neurons."""
    field = draw(fields)
    image = draw(st.tuples(st.integers(1, 26), st.integers(1, 26)))
    grid = [max(1, -(-pixels // field.stride) + draw(st.integers(-3, 4))) for pixels in image]
    shares = draw(st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.5, 1.0]), min_size=1, max_size=9))
    return field, draw(st.integers(1, most)), image, grid, shares


def made(case, generator, dtype):
    field, n, image, grid, shares = case
    images = torch.rand(n, 3, *image, generator=generator).to(dtype)
    chosen = torch.rand(n, len(shares), *grid, generator=generator) < torch.tensor(shares)[:, None, None]
    return images, chosen, field


@settings(max_examples=300, deadline=None, database=None)
@given(case=cases(), dtype=st.sampled_from([torch.float32, torch.float64]), seed=st.integers(0, 10**6))
def test_any_geometry(case, dtype, seed):
    images, chosen, field = made(case, torch.Generator().manual_seed(seed), dtype)
    assert_sums_are(Phases(images), images, chosen, field)


@settings(max_examples=60, deadline=None, database=None)
@given(
    sequence=st.lists(cases(most=3), min_size=2, max_size=4),
    dtypes=st.lists(st.sampled_from([torch.float32, torch.float64]), min_size=4, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_several_sizes_in_sequence_through_one_workspace(sequence, dtypes, seed):
    generator, space = torch.Generator().manual_seed(seed), Workspace()
    for case, dtype in zip(sequence, dtypes, strict=False):
        images, chosen, field = made(case, generator, dtype)
        assert_sums_are(Phases(images, space), images, chosen, field)


@settings(max_examples=60, deadline=None, database=None)
@given(
    several=st.lists(st.tuples(fields, st.integers(1, 3)), min_size=2, max_size=4),
    image=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    more=st.integers(-1, 3),
    seed=st.integers(0, 10**6),
)
def test_several_layers_share_the_phases(several, image, more, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, *image, generator=generator)
    phases = Phases(images)
    few_strides = [ReceptiveField(field.size, stride, field.start) for field, stride in several]
    for field in [*few_strides, *few_strides]:
        grid = [max(1, -(-pixels // field.stride) + more) for pixels in image]
        assert_sums_are(phases, images, torch.rand(2, 3, *grid, generator=generator) < 0.4, field)


@settings(max_examples=60, deadline=None, database=None)
@given(case=cases(most=3), most=st.sampled_from([1, 3000, 20000, 60000]), seed=st.integers(0, 10**6))
def test_products_that_are_too_large_are_made_in_parts(case, most, seed):
    images, chosen, field = made(case, torch.Generator().manual_seed(seed), torch.float64)
    with mock.patch.object(patch_sums, "_PRODUCT", most):
        assert_sums_are(Phases(images), images, chosen, field)


@settings(max_examples=40, deadline=None, database=None)
@given(case=cases(most=2), seed=st.integers(0, 10**6))
def test_one_neuron_gives_its_patch(case, seed):
    images, chosen, field = made(case, torch.Generator().manual_seed(seed), torch.float64)
    n, channels, h, w = chosen.shape
    i, channel, y, x = seed % n, seed // 2 % channels, seed // 3 % h, seed // 5 % w
    chosen[:] = False
    chosen[i, channel, y, x] = True
    phases = Phases(images)
    sums, _, top, left = summed_patches(phases, chosen, field)
    assume(sums.numel())
    patch, inside = field.crop(images[i], y, x)
    whole = torch.zeros(channels, 3, field.size, field.size, dtype=torch.float64)
    whole[:, :, top : top + sums.shape[2], left : left + sums.shape[3]] = sums
    torch.testing.assert_close(whole[channel], (patch - MIDDLE) * inside, rtol=0, atol=1e-10)
    assert not whole[torch.arange(channels) != channel].any()


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("used", [0, 1, 2, 3, 4])
def test_silent_channels_have_empty_sums(channels, used):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 12, 9, generator=generator)
    chosen = torch.rand(5, channels, 6, 5, generator=generator) < 0.5
    chosen[:, torch.randperm(channels, generator=generator)[used:]] = False
    phases, field = Phases(images), ReceptiveField(7, 2, -3)
    assert_sums_are(phases, images, chosen, field)
    sums, *_ = summed_patches(phases, chosen, field)
    assert sums[~chosen.any(3).any(2).any(0)].abs().sum() == 0


def test_fields_that_never_touch_the_image():
    images = torch.rand(2, 3, 4, 4)
    phases = Phases(images)
    for start in (-30, -15, -8, 4, 30):  # all neurons look before the image, or behind it
        assert_sums_are(phases, images, torch.ones(2, 2, 3, 3), ReceptiveField(4, 2, start))
        assert_sums_are(phases, images, torch.ones(2, 2, 3, 30), ReceptiveField(4, 2, start))


def test_colours_outside_of_0_to_1_and_constant_images():
    for value in (0.0, 0.5, 1.0, -3.0, 20.0):
        images = torch.full((2, 3, 9, 11), value, dtype=torch.float64)
        assert_sums_are(Phases(images), images, torch.ones(2, 2, 5, 6), ReceptiveField(7, 2, -3))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of", ["images", "chosen"])
def test_any_memory_format(layout, of):
    generator = torch.Generator().manual_seed(0)
    images, chosen = torch.rand(6, 3, 13, 8, generator=generator), torch.rand(6, 5, 7, 4, generator=generator) - 0.5
    if of == "images":
        images = LAYOUTS[layout](images)
    else:
        chosen = LAYOUTS[layout](chosen)
    assert_sums_are(Phases(images), images, chosen, ReceptiveField(11, 2, -5))


def test_half_precision_images_are_summed_in_float32():
    images = torch.rand(2, 3, 8, 8).half()
    sums, *_ = summed_patches(Phases(images), torch.ones(2, 1, 4, 4), ReceptiveField(3, 2, -1))
    expected, _ = brute_sums(images.float(), torch.ones(2, 1, 4, 4), ReceptiveField(3, 2, -1))
    assert sums.dtype == torch.float32
    np.testing.assert_allclose(sums[0].numpy(), expected[0], atol=1e-4)


# ------------------------------------------------------------------------------------------- several cores, grids


@settings(max_examples=60, deadline=None, database=None)
@given(case=cases(), dtype=st.sampled_from([torch.float32, torch.float64]), seed=st.integers(0, 10**6))
def test_on_several_cores_every_bit_is_the_same(two_cores, case, dtype, seed):
    images, chosen, field = made(case, torch.Generator().manual_seed(seed), dtype)
    one, two = (summed_patches(Phases(images, Workspace(), cores), chosen, field) for cores in (ALONE, two_cores))
    assert bits(*one[:2]) == bits(*two[:2]) and one[2:] == two[2:]


@settings(max_examples=100, deadline=None, database=None)
@given(case=cases(most=3), data=st.data(), seed=st.integers(0, 10**6))
def test_neurons_in_some_rows_and_columns(case, data, seed):
    images, chosen, field = made(case, torch.Generator().manual_seed(seed), torch.float64)
    begins = [data.draw(st.integers(0, side - 1)) for side in chosen.shape[2:]]
    y, x = (slice(b, data.draw(st.integers(b, side))) for b, side in zip(begins, chosen.shape[2:], strict=True))
    chosen = torch.zeros(len(images), 1, *chosen.shape[2:])
    chosen[:, :, y, x] = 1
    expected, _ = brute_sums(images, chosen, field)
    found = summed_grid(Phases(images).total, y, x, field)
    np.testing.assert_allclose(found.numpy(), expected[0], rtol=0, atol=1e-10)


# -------------------------------------------------------------------------------------------------- what is positive


@pytest.mark.parametrize("to", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.int64]
)
def test_what_is_positive_is_marked(to, layout, dtype):
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0 if dtype in (torch.bool, torch.uint8) else -3, 4, (9, 2, 3, 4), generator=generator)
    found = positive(LAYOUTS[layout](numbers).to(dtype), to)
    assert found.dtype == to
    assert found.tolist() == (numbers > 0).double().tolist()


@pytest.mark.parametrize("to", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_and_the_smallest_and_largest_numbers(to, dtype):
    about = torch.finfo(dtype)
    smallest = 2.0**-149 if dtype == torch.float32 else 5e-324
    values = torch.tensor([0.0, -0.0, smallest, -smallest, about.tiny, -about.tiny, about.max, about.min], dtype=dtype)
    assert positive(values, to).tolist() == [0, 0, 1, 0, 1, 0, 1, 0]


def test_chosen_neurons_are_left_as_they_are():
    chosen = torch.tensor([2.0, -1.0]).view(1, 1, 1, 2)
    summed_patches(Phases(torch.zeros(1, 3, 4, 4)), chosen, ReceptiveField(3, 2, -1))
    assert chosen.flatten().tolist() == [2, -1]


# ----------------------------------------------------------------------------------------------- photographs

LAYERS = ["conv1", "maxpool", *(f"layer{i + 1}.{j}" for i, blocks in enumerate((3, 4, 6, 3)) for j in range(blocks))]


@pytest.fixture(scope="module")
def fields_of_resnet34():
    return receptive_field.of_layers(models.resnet34(2, 2), LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_photographs_and_the_layers_of_resnet34(some_tiles, fields_of_resnet34, layer, dtype):
    field = fields_of_resnet34[layer]
    assert layer != "layer4.2" or field == ReceptiveField(899, 32, -449)
    images = some_tiles[::5, :, :, :50].to(dtype)  # rectangular
    grid = [-(-pixels // field.stride) for pixels in images.shape[2:]]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(len(images), 4, *grid, generator=generator) < torch.tensor([0.1, 0.9, 0, 0.5])[:, None, None]
    assert_sums_are(Phases(images), images, chosen, field)


def test_all_layers_of_resnet34_in_one_pass_over_photographs(some_tiles, fields_of_resnet34):
    """One Workspace, batches of other sizes, all layers of a stride with the same Phases."""
    space, generator = Workspace(), torch.Generator().manual_seed(0)
    for images in (some_tiles[:2], torch.cat([some_tiles[2:3], some_tiles[3:4]], 3), some_tiles[4:6, :, :40]):
        phases = Phases(images, space)
        for layer in LAYERS[1::2]:
            field = fields_of_resnet34[layer]
            grid = [-(-pixels // field.stride) for pixels in images.shape[2:]]
            assert_sums_are(phases, images, torch.rand(len(images), 2, *grid, generator=generator) < 0.3, field)


@pytest.mark.parametrize("layer", ["conv1", "layer1.2", "layer2.3", "layer4.2"])
def test_a_photograph_of_usual_size(some_tiles, fields_of_resnet34, layer):
    images = torch.cat([torch.cat(list(some_tiles[i : i + 4]), 2) for i in (0, 4, 8)], 1)[None]
    assert images.shape == (1, 3, 192, 256)
    field = fields_of_resnet34[layer]
    grid = [pixels // field.stride for pixels in (192, 256)]
    generator = torch.Generator().manual_seed(0)
    assert_sums_are(Phases(images), images, torch.rand(1, 2, *grid, generator=generator) < 0.1, field)
