"""The strongest neurons against the head of a sorted list."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LAYOUTS, bits, brute_top, splits, through_a_file

from rfviz.kernels.responses.maps import Maps
from rfviz.kernels.responses.top_stimuli import TopStimuli

PALETTE = {
    torch.float32: [-3e38, -1.5, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1e-38, 0.5, 1.0, 1 + 2.0**-23, 3e38],
    torch.float64: [-1e308, -1 - 2.0**-52, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1e-46, 1.0, 1 + 2.0**-52, 1e308],
}
"""Numbers of which any may come: of either sign, denormal, neighbours, huge."""


def some(shape, dtype, levels, seed):
    """Responses of a few of the numbers of the palette: full of ties."""
    generator = torch.Generator().manual_seed(seed)
    palette = torch.tensor(PALETTE[dtype], dtype=dtype)
    chosen = palette[torch.randperm(len(palette), generator=generator)[:levels]]
    return chosen[torch.randint(0, len(chosen), shape, generator=generator)]


def assert_top_is(top, responses, k, per_image, numbers=None):
    """Compare with the responses (C, h, w) to each image; `numbers` are those of the images, if not 0, 1, 2, ..."""
    numbers = range(len(responses)) if numbers is None else numbers
    values, images, positions = top.result()
    assert values.dtype == responses[0].dtype and images.dtype == positions.dtype == torch.int64
    for channel in range(len(responses[0])):
        expected = brute_top(responses, channel, k, per_image)
        missing = k - len(expected)
        assert values[channel].tolist() == [value for value, *_ in expected] + [-torch.inf] * missing
        assert images[channel].tolist() == [numbers[i] for _, i, *_ in expected] + [-1] * missing
        assert positions[channel].tolist() == [[y, x] for *_, y, x in expected] + [[-1, -1]] * missing


@settings(max_examples=60, deadline=None, database=None)
@given(
    split=splits(9),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    k=st.integers(1, 12),
    per_image=st.sampled_from([1, 2, 5, None]),
    levels=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    order=st.randoms(use_true_random=False),
)
def test_top_k_is_the_head_of_the_sorted_list_however_batches_come(split, shape, k, per_image, levels, seed, order):
    n, parts = split
    generator = torch.Generator().manual_seed(seed)
    responses = torch.randint(0, levels, (n, *shape), generator=generator).float()
    order.shuffle(parts)
    top = TopStimuli(k, per_image)
    for begin, end in parts:
        top.update(torch.arange(begin, end), Maps(responses[begin:end]))
    values, images, positions = top.result()
    for channel in range(shape[0]):
        expected = brute_top(responses, channel, k, per_image)
        missing = k - len(expected)
        assert values[channel].tolist() == [value for value, *_ in expected] + [-torch.inf] * missing
        assert images[channel].tolist() == [i for _, i, *_ in expected] + [-1] * missing
        assert positions[channel].tolist() == [[y, x] for *_, y, x in expected] + [[-1, -1]] * missing


@settings(max_examples=200, deadline=None, database=None)
@given(
    split=splits(12),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    k=st.integers(1, 30),
    per_image=st.sampled_from([1, 2, 5, None]),
    dtype=st.sampled_from(list(PALETTE)),
    levels=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    order=st.randoms(use_true_random=False),
)
def test_any_split_in_any_order_lists_the_same(split, shape, k, per_image, dtype, levels, seed, order):
    n, batches = split
    responses = some((n, *shape), dtype, levels, seed)
    numbers = sorted(order.sample(range(2**31), n))
    top = TopStimuli(k, per_image)
    order.shuffle(batches)
    for begin, end in batches:
        layout = order.choice(list(LAYOUTS.values()))
        top.update(torch.tensor(numbers[begin:end]), Maps(layout(responses[begin:end])))
    assert_top_is(top, responses, k, per_image, numbers)


@settings(max_examples=60, deadline=None, database=None)
@given(
    split=splits(10),
    k=st.integers(1, 30),
    per_image=st.sampled_from([1, 2, 5, None]),
    dtype=st.sampled_from(list(PALETTE)),
    levels=st.integers(1, 12),
    seed=st.integers(0, 10**6),
)
def test_going_on_from_a_state_changes_no_bit(split, k, per_image, dtype, levels, seed):
    n, batches = split
    responses = some((n, 2, 2, 3), dtype, levels, seed)

    def passed(stop):
        top = TopStimuli(k, per_image)
        for number, (begin, end) in enumerate(batches):
            if number == stop:
                state = through_a_file(top.state_dict())
                top = TopStimuli(k, per_image)
                top.load_state_dict(state)
            top.update(torch.arange(begin, end), Maps(responses[begin:end]))
        return bits(*top.result())

    assert all(passed(stop) == passed(None) for stop in range(len(batches)))


# -------------------------------------------------------------------------------------------- many, and large


@pytest.mark.parametrize("per_image", [1, None])
@pytest.mark.parametrize("k", [1, 7, 64, 200, 500])
@pytest.mark.parametrize("levels", [1, 3, 12])
def test_many_batches_one_image_at_a_time(k, per_image, levels):
    """Most batches bring one candidate or none, and these wait."""
    responses = some((120, 2, 1, 3), torch.float32, levels, k)
    top = TopStimuli(k, per_image)
    for i in torch.randperm(120, generator=torch.Generator().manual_seed(k)).tolist():
        top.update(torch.tensor([i]), Maps(responses[[i]]))
        assert sum(part.shape[1] for part, _ in top._waiting) < k  # memory does not grow
    assert_top_is(top, responses, k, per_image)


@pytest.mark.parametrize("per_image", [1, None])
def test_responses_that_rise_and_that_fall(per_image):
    """Every batch is better than all before it, and none is."""
    rising = torch.arange(90.0).view(30, 1, 1, 3)
    responses = torch.cat([rising, -rising, torch.zeros_like(rising)], 1)
    top = TopStimuli(16, per_image)
    for i in range(0, 30, 2):
        top.update(torch.arange(i, i + 2), Maps(responses[i : i + 2]))
    assert_top_is(top, responses, 16, per_image)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per_image", [1, None])
@pytest.mark.parametrize("dtype", PALETTE)
def test_any_memory_format(layout, per_image, dtype):
    responses = some((9, 5, 3, 4), dtype, 5, 0)
    top = TopStimuli(6, per_image)
    for begin in range(0, 9, 3):
        top.update(torch.arange(begin, begin + 3), Maps(LAYOUTS[layout](responses[begin : begin + 3])))
    assert_top_is(top, responses, 6, per_image)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.0, 1e-45])
def test_constant_images_list_the_first_neurons(value):
    constant = Maps(torch.full((3, 2, 2, 2), value))
    one, every = TopStimuli(2, 1), TopStimuli(6, None)
    for first in (3, 0):  # the later images come first
        one.update(torch.arange(first, first + 3), constant)
        every.update(torch.arange(first, first + 3), constant)
    values, images, positions = one.result()
    assert images.tolist() == [[0, 1]] * 2 and positions.tolist() == [[[0, 0]] * 2] * 2 and (values == value).all()
    values, images, positions = every.result()
    assert images.tolist() == [[0, 0, 0, 0, 1, 1]] * 2 and (values == value).all()
    assert positions[0].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_ties_in_any_order_of_images(k):
    silent = Maps(torch.zeros(1, 1, 1, 1))
    for order in itertools.permutations(range(5)):
        for per_image in (1, None):
            top = TopStimuli(k, per_image)
            for i in order:
                top.update(torch.tensor([i]), silent)
            assert top.result()[1].tolist() == [list(range(k))]


@pytest.mark.parametrize("per_image", [1, None])
def test_images_of_several_sizes(per_image):
    shapes = [(2, 3), (5, 1), (1, 1), (2, 7), (4, 4)]
    responses = [some((2, *shape), torch.float32, 4, i) for i, shape in enumerate(shapes)]
    top = TopStimuli(9, per_image)
    for i, of_image in enumerate(responses):
        top.update(torch.tensor([i]), Maps(of_image[None]))
    assert_top_is(top, responses, 9, per_image)


LARGEST = 2**31 - 1


@pytest.mark.parametrize("per_image", [1, None])
@pytest.mark.parametrize("shape", [(65536, 1), (1, 65536), (3, 21846)])
@pytest.mark.parametrize("image", [0, 1, 2**16, LARGEST - 1, LARGEST])
def test_numbers_of_images_and_positions_come_back(image, shape, per_image):
    height, width = shape
    responses = torch.zeros(1, 2, height, width)
    responses[0, 0, -1, -1] = 2
    responses[0, 1, height // 2, width // 2] = responses[0, 1, -1, -1] = 3  # of these, the first wins
    top, other = TopStimuli(3, per_image), TopStimuli(3, per_image)
    top.update(torch.tensor([image]), Maps(responses))
    other.load_state_dict(through_a_file(top.state_dict()))
    for each in (top, other):
        values, images, positions = each.result()
        found = 1 if per_image == 1 else 3
        assert values[:, 0].tolist() == [2, 3]
        assert images[:, :found].tolist() == [[image] * found] * 2
        assert positions[:, 0].tolist() == [[height - 1, width - 1], [height // 2, width // 2]]
        if per_image is None:
            assert values[:, 1].tolist() == [0, 3]
            assert positions[:, 1].tolist() == [[0, 0], [height - 1, width - 1]]


def test_the_largest_numbers_keep_their_order():
    numbers = [0, 1, 2**16 - 1, 2**16, 2**30, LARGEST - 1, LARGEST]
    top = TopStimuli(7)
    for number in reversed(numbers):
        top.update(torch.tensor([number]), Maps(torch.zeros(1, 1, 2, 2)))
    assert top.result()[1].tolist() == [numbers]


# --------------------------------------------------------------------------------------------------- algebra


@pytest.mark.parametrize("per_image", [1, None])
def test_what_was_loaded_goes_its_own_way(per_image):
    responses = some((6, 2, 2, 2), torch.float32, 5, 1)
    top, loaded = TopStimuli(5, per_image), TopStimuli(5, per_image)
    top.update(torch.arange(3), Maps(responses[:3]))
    loaded.load_state_dict(top.state_dict())
    loaded.update(torch.arange(3, 6), Maps(responses[3:]))
    assert_top_is(top, responses[:3], 5, per_image)
    for found in loaded.result():
        found.zero_()
    assert_top_is(loaded, responses, 5, per_image)


def test_a_state_replaces_what_was_there_and_stays_as_it_was():
    responses = some((6, 2, 2, 2), torch.float32, 5, 1)
    one, other = TopStimuli(5), TopStimuli(5)
    one.update(torch.arange(3), Maps(responses[:3]))
    other.update(torch.arange(6, 9), Maps(torch.full((3, 2, 2, 2), 3e38)))
    state = one.state_dict()
    before = bits(*state.values())
    one.update(torch.arange(3, 6), Maps(responses[3:]))
    assert bits(*state.values()) == before
    other.load_state_dict(state)
    assert_top_is(other, responses[:3], 5, 1)
    other.load_state_dict(TopStimuli(5).state_dict())
    other.update(torch.arange(6), Maps(responses))
    assert_top_is(other, responses, 5, 1)


def test_what_was_found_in_inference_mode_can_be_used_outside_it():
    responses = some((4, 2, 2, 2), torch.float32, 5, 1)
    top, loaded = TopStimuli(5), TopStimuli(5)
    with torch.inference_mode():
        top.update(torch.arange(3), Maps(responses[:3]))
        loaded.load_state_dict(top.state_dict())
    for each in (top, loaded):
        each.update(torch.arange(3, 4), Maps(responses[3:]))
        for found in each.result():
            found.zero_()
        assert_top_is(each, responses, 5, 1)
