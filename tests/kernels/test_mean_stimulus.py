"""Mean patches against a loop over the patches."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LAYOUTS, assert_mean_is, bits, brute_mean, splits, through_a_file

from rfviz.kernels.responses.mean_stimulus import MeanStimulus
from rfviz.kernels.responses.patch_sums import MIDDLE, Phases, Workspace
from rfviz.nets.receptive_field import ReceptiveField


def neurons_of(batches, channel):
    """Image number and position of the chosen neurons of a channel, the images of all batches counted together."""
    found, first = [], 0
    for images, chosen in batches:
        found += [(first + i, y, x) for i, y, x in (chosen[:, channel] > 0).nonzero().tolist()]
        first += len(images)
    return found


def assert_is_mean_of(mean, batches):
    """Compare with batches of images and chosen neurons."""
    images = [image for of_batch, _ in batches for image in of_batch]
    assert_mean_is(
        *mean.result(), images, lambda channel: neurons_of(batches, channel), dataclasses.astuple(mean.field)
    )


def totals(mean):
    """Sums and counts, exact as they are kept, over the whole field."""
    state, size = mean.state_dict(), mean.field.size
    (top, left), (channels, rows, columns) = state["corner"].tolist(), state["count"].shape
    total, count = np.zeros((channels, 3, size, size)), np.zeros((channels, size, size), dtype=int)
    total[:, :, top : top + rows, left : left + columns] = state["total"]
    count[:, top : top + rows, left : left + columns] = state["count"]
    return total, count


@settings(max_examples=60, deadline=None, database=None)
@given(
    split=splits(6),
    stride=st.integers(1, 5),
    size=st.integers(1, 9),
    padding=st.integers(0, 8),
    image=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_mean_stimulus_of_any_geometry(split, stride, size, padding, image, share, seed):
    height, width = image
    padding = max(padding, (size - min(image) + 1) // 2)  # a window must fit into the padded image
    grid = [(length + 2 * padding - size) // stride + 1 for length in image]
    n, parts = split
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, height, width, generator=generator)
    chosen = torch.rand(n, 2, *grid, generator=generator) < share
    mean = MeanStimulus(ReceptiveField(size, stride, -padding))
    for begin, end in parts:
        mean.update(Phases(images[begin:end]), chosen[begin:end])
    assert_mean_is(
        *mean.result(),
        images,
        lambda channel: [(i, y, x) for i, there, y, x in chosen.nonzero().tolist() if there == channel],
        (size, stride, -padding),
    )


@st.composite
def streams(draw):
    """A field, and batches (images, chosen neurons) of 2 channels of several sizes and maps."""
    field = ReceptiveField(draw(st.integers(1, 30)), draw(st.integers(1, 6)), draw(st.integers(-33, 6)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    sizes = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3))
    batches = []
    for _ in range(draw(st.integers(1, 6))):
        n, image, share = draw(st.integers(1, 2)), draw(st.sampled_from(sizes)), draw(st.sampled_from([0, 0.2, 1]))
        grid = [max(1, -(-pixels // field.stride) + draw(st.integers(-2, 2))) for pixels in image]
        images = torch.rand(n, 3, *image, generator=generator, dtype=torch.float64)
        batches.append((images, torch.rand(n, 2, *grid, generator=generator) < share))
    return field, batches


@settings(max_examples=200, deadline=None, database=None)
@given(
    stream=streams(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    order=st.randoms(use_true_random=False),
)
def test_any_split_in_any_order_gives_the_same(stream, dtype, order):
    field, batches = stream
    batches = [(images.to(dtype), chosen) for images, chosen in batches]
    straight = MeanStimulus(field)
    for images, chosen in batches:
        straight.update(Phases(images), chosen)
    space = Workspace()  # one for all, as in a pass
    found = MeanStimulus(field)
    for images, chosen in order.sample(batches, len(batches)):
        # In float32, where a batch is divided changes the rounding of its sums.
        halves = dtype == torch.float64 and len(images) == 2 and order.random() < 0.5
        for begin, end in ([0, 1], [1, 2]) if halves else ([0, 2],):
            found.update(Phases(images[begin:end], space), chosen[begin:end])
    for each in (straight, found):
        assert_is_mean_of(each, batches)
    (total, count), (expected, expected_count) = totals(found), totals(straight)
    np.testing.assert_array_equal(count, expected_count)
    np.testing.assert_allclose(total, expected, rtol=1e-12, atol=1e-12 * max(1, count.max()))
    if dtype == torch.float64:  # and the sums are those of the loop to the last digits
        all_images = [image for of_batch, _ in batches for image in of_batch]
        for channel in range(2):
            mean, count = brute_mean(all_images, neurons_of(batches, channel), dataclasses.astuple(field))
            np.testing.assert_allclose(total[channel], (mean - MIDDLE) * count, rtol=0, atol=1e-11)


@settings(max_examples=80, deadline=None, database=None)
@given(stream=streams(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_going_on_from_a_state_changes_no_bit(stream, dtype):
    field, batches = stream

    def passed(stop):
        mean = MeanStimulus(field)
        for number, (images, chosen) in enumerate(batches):
            if number == stop:
                state = through_a_file(mean.state_dict())
                mean = MeanStimulus(field)
                mean.load_state_dict(state)
            mean.update(Phases(images.to(dtype)), chosen)
        return bits(*mean.result(), *mean.state_dict().values())

    assert all(passed(stop) == passed(None) for stop in range(len(batches)))


# ---------------------------------------------------------------------------------------- sizes, and the window


def batch(n, image, grid, share=0.5, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, *image, generator=generator)
    return images, torch.rand(n, channels, *grid, generator=generator) < share


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 2, 1, 3, 2)])
def test_the_window_grows_with_the_images(order):
    field = ReceptiveField(41, 4, -20)
    sizes = [(3, 2), (4, 30), (30, 4), (16, 18), (60, 50)]
    batches = [batch(2, sizes[i], [-(-pixels // 4) for pixels in sizes[i]], seed=i) for i in order]
    mean, areas = MeanStimulus(field), []
    for images, chosen in batches:
        mean.update(Phases(images), chosen)
        areas.append(mean.count[0].numel())
    assert areas == sorted(areas) and areas[-1] == 41**2
    assert order[0] == 4 or areas[0] < 41**2 / 4
    assert_is_mean_of(mean, batches)


def test_maps_of_several_sizes_over_images_of_one():
    """As the second look at the strongest neurons makes them: as large as it must be."""
    batches = [batch(2, (12, 10), grid, seed=i) for i, grid in enumerate([(6, 5), (7, 5), (6, 8), (1, 1), (9, 9)])]
    mean = MeanStimulus(ReceptiveField(9, 2, -7))
    for images, chosen in batches:
        mean.update(Phases(images), chosen)
    assert_is_mean_of(mean, batches)


@pytest.mark.parametrize("sizes", [[(8, 8), (7, 8)], [(7, 8), (8, 8), (8, 7)], [(8, 7), (8, 8)]])
def test_maps_of_one_size_over_images_of_several(sizes):
    """As the last rows of an image that fill no stride leave it."""
    batches = [batch(3, size, (4, 4), 0.7, seed=i) for i, size in enumerate(sizes)]
    mean = MeanStimulus(ReceptiveField(7, 2, -3))
    for images, chosen in batches:
        mean.update(Phases(images), chosen)
    assert_is_mean_of(mean, batches)


def test_a_field_that_does_not_reach_one_of_the_images():
    """A stride so large that the only neuron looks past a small image."""
    field = ReceptiveField(1, 8, -2)
    small, large = batch(2, (4, 4), (1, 1), 1.0), batch(2, (10, 20), (2, 3), 1.0)
    for batches in ([small], [small, large], [large, small], [small, large, small]):
        mean = MeanStimulus(field)
        for images, chosen in batches:
            mean.update(Phases(images), chosen)
        assert_is_mean_of(mean, batches)


def test_pixels_outside_the_image_do_not_count():
    images = torch.rand(1, 3, 6, 6)
    mean = MeanStimulus(ReceptiveField(5, 2, -2))
    chosen = torch.zeros(1, 1, 3, 3)
    chosen[0, 0, 0, 0] = 1
    mean.update(Phases(images), chosen)
    found, count = mean.result()
    assert count[0].tolist() == [[0, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 1]] * 3
    torch.testing.assert_close(found[0, :, 2:, 2:], images[0, :, :3, :3], rtol=0, atol=1e-6)
    assert not found[0, :, :2].any() and not found[0, :, :, :2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_chosen_gives_zero_and_not_nan(dtype):
    mean = MeanStimulus(ReceptiveField(7, 2, -3))
    for responses in (torch.zeros(2, 3, 4, 4), -torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), -0.0)):
        mean.update(Phases(torch.rand(2, 3, 8, 8, dtype=dtype)), responses)
    found, count = mean.result()
    assert found.shape == (3, 3, 7, 7) and count.shape == (3, 7, 7)
    assert not found.any() and not count.any() and found.isfinite().all()


def test_a_silent_channel_beside_one_that_is_not():
    images, chosen = batch(3, (8, 8), (4, 4), channels=5)
    chosen[:, [0, 1, 2, 4]] = False
    mean = MeanStimulus(ReceptiveField(7, 2, -3))
    mean.update(Phases(images), chosen)
    assert_is_mean_of(mean, [(images, chosen)])
    assert mean.result()[0].flatten(1).any(1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_format(layout):
    generator = torch.Generator().manual_seed(0)
    images, responses = torch.rand(5, 3, 9, 8, generator=generator), torch.rand(5, 6, 5, 4, generator=generator) - 0.5
    mean = MeanStimulus(ReceptiveField(5, 2, -2))
    mean.update(Phases(LAYOUTS[layout](images)), LAYOUTS[layout](responses))
    assert_is_mean_of(mean, [(images, responses)])


def test_photographs(some_tiles):
    field = ReceptiveField(227, 16, -113)
    chosen = (
        torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.1, 0.5, 1])[:, None, None]
    )
    mean = MeanStimulus(field)
    for begin in range(0, 12, 5):
        mean.update(Phases(some_tiles[begin : begin + 5]), chosen[begin : begin + 5])
    assert_is_mean_of(mean, [(some_tiles, chosen)])


# ------------------------------------------------------------------------------------------ counts, the state


def test_many_images_are_counted_exactly_and_do_not_make_the_state_larger():
    images, mean, sizes = torch.full((200, 3, 4, 4), 0.75), MeanStimulus(ReceptiveField(3, 2, -1)), []

    def held():
        tensors = [value for value in vars(mean).values() if isinstance(value, torch.Tensor)]
        return [each.numel() * each.element_size() for each in tensors]

    for _ in range(30):
        mean.update(Phases(images), torch.ones(200, 2, 2, 2))
        sizes.append((held(), [each.shape for each in mean.state_dict().values()]))
        mean.update(Phases(images), torch.ones(200, 2, 2, 2))
        sizes.append((held(), [each.shape for each in mean.state_dict().values()]))
    assert all(size == sizes[1] for size in sizes[1:])
    found, count = mean.result()
    assert count[0].tolist() == [[12000, 24000, 24000], [24000, 48000, 48000], [24000, 48000, 48000]]
    assert (found - 0.75).abs().amax() < 1e-6


def test_a_sum_of_many_batches_loses_nothing():
    """In float32, adding 1 / 4 to 2^22 changes nothing."""
    mean = MeanStimulus(ReceptiveField(1, 1, 0))
    mean.update(Phases(torch.full((1, 3, 1, 1), 0.5 + 2.0**22)), torch.ones(1, 1, 1, 1))
    for _ in range(8):
        mean.update(Phases(torch.full((1, 3, 1, 1), 0.75)), torch.ones(1, 1, 1, 1))
    assert mean.state_dict()["total"].flatten().tolist() == [2.0**22 + 2] * 3


def test_what_was_loaded_goes_its_own_way():
    first, second = batch(2, (8, 8), (4, 4), seed=1), batch(2, (9, 12), (5, 6), seed=2)
    field = ReceptiveField(7, 2, -3)
    mean, loaded = MeanStimulus(field), MeanStimulus(field)
    mean.update(Phases(first[0]), first[1])
    loaded.load_state_dict(mean.state_dict())
    loaded.update(Phases(second[0]), second[1])
    assert_is_mean_of(mean, [first])
    for found in loaded.result():
        found.zero_()
    assert_is_mean_of(loaded, [first, second])


def test_a_state_replaces_what_was_there():
    first, second = batch(2, (8, 8), (4, 4), seed=1), batch(2, (9, 12), (5, 6), seed=2)
    field = ReceptiveField(7, 2, -3)
    one, other = MeanStimulus(field), MeanStimulus(field)
    one.update(Phases(first[0]), first[1])
    other.update(Phases(second[0]), second[1])
    other.load_state_dict(one.state_dict())
    assert_is_mean_of(other, [first])
    other.load_state_dict(MeanStimulus(field).state_dict())
    other.update(Phases(second[0]), second[1])
    assert_is_mean_of(other, [second])


def test_what_was_found_in_inference_mode_can_be_used_outside_it():
    first, second = batch(2, (8, 8), (4, 4), seed=1), batch(2, (9, 12), (5, 6), seed=2)
    mean, other = MeanStimulus(ReceptiveField(7, 2, -3)), MeanStimulus(ReceptiveField(7, 2, -3))
    loaded = MeanStimulus(mean.field)
    with torch.inference_mode():
        mean.update(Phases(first[0]), first[1])
        other.update(Phases(second[0]), second[1])
        loaded.load_state_dict(mean.state_dict())
        loaded.update(Phases(first[0]), first[1])
    for each in (mean, loaded):
        each.update(Phases(second[0]), second[1])
        for found in each.result():
            found.zero_()
    assert_is_mean_of(mean, [first, second])
    assert_is_mean_of(loaded, [first, first, second])
    loaded.load_state_dict(other.state_dict())
    loaded.update(Phases(second[0]), second[1])
    assert_is_mean_of(loaded, [second, second])
