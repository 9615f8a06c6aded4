"""How often and how strongly channels respond, against loops over the numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LAYOUTS, bin_of, bits, splits, through_a_file

from rfviz.kernels.responses import maps as module
from rfviz.kernels.responses.activity import HISTOGRAM_EDGES, Activity
from rfviz.kernels.responses.maps import Maps

PALETTE = {
    torch.float32: [-3e38, -2.0, -1e-45, -0.0, 0.0, 1e-45, 1e-38, 0.0009, 2.0**-10, 0.3, 1.0, 1024.0, 3e38],
    torch.float64: [-1e290, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1e-308, 2.0**-10 - 2.0**-60, 0.25, 1 + 2.0**-52, 1e290],
}
"""Numbers of which any may come: of either sign, denormal, at edges, huge."""


@pytest.fixture(autouse=True, scope="module")
def _two_images_at_a_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", 1)
        yield


def some(shape, dtype, levels, seed):
    """Responses of a few of the numbers of the palette."""
    generator = torch.Generator().manual_seed(seed)
    palette = torch.tensor(PALETTE[dtype], dtype=dtype)
    chosen = palette[torch.randperm(len(palette), generator=generator)[:levels]]
    return chosen[torch.randint(0, len(chosen), shape, generator=generator)]


def assert_activity_is(activity, values):
    """Compare with all responses of every channel, as lists."""
    found = activity.result()
    assert found["maximum"].dtype == found["mean"].dtype == torch.float64
    assert found["positive_count"].dtype == found["histogram"].dtype == torch.int64
    assert found["histogram"].shape == (len(values), 23)
    for channel, numbers in enumerate(values):
        assert found["maximum"][channel] == max(numbers)
        total, size = math.fsum(numbers), math.fsum(map(abs, numbers))
        rounded = len(numbers) * 2.0**-1074  # of a mean below the normal numbers, by up to the smallest number there is
        assert abs(found["mean"][channel].item() * len(numbers) - total) <= 1e-12 * size + rounded
        assert found["positive_count"][channel] == sum(number > 0 for number in numbers)
        expected = np.bincount([bin_of(number) for number in numbers], minlength=23)
        assert found["histogram"][channel].tolist() == expected.tolist()
    assert activity.state["neurons"] == len(values[0])


def by_channel(responses):
    return responses.transpose(0, 1).flatten(1).tolist()


# ------------------------------------------------------------------------------------------------- histogram


def test_histogram_edges_belong_to_the_bin_above():
    edges = 2.0 ** torch.arange(-10, 11)
    below = torch.nextafter(edges, torch.zeros(()))
    above = torch.nextafter(edges, torch.full((), torch.inf))
    smallest = torch.tensor([0.0, -0.0, -1.0, torch.finfo(torch.float32).tiny])
    values = torch.cat([edges, below, above, smallest])
    activity = Activity()
    activity.update(Maps(values.view(1, 1, 1, -1)))
    histogram = activity.result()["histogram"][0]
    assert histogram.tolist() == np.bincount([bin_of(value) for value in values.tolist()], minlength=23).tolist()
    # By hand: zeros and below; the smallest and the one below 2^-10; edge, above and the next below; the last two.
    assert histogram.tolist() == [3, 2, *[3] * 20, 2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float64_edges_are_not_rounded(layout):
    edges = 2.0 ** torch.arange(-10, 11).double()
    below = torch.nextafter(edges, torch.zeros((), dtype=torch.float64))  # the edge itself in float32
    activity = Activity()
    activity.update(Maps(LAYOUTS[layout](torch.cat([edges, below]).view(1, 1, 6, 7))))
    assert activity.result()["histogram"][0].tolist() == [0, 1, *[2] * 20, 1]


def test_the_edges_are_those_that_are_told():
    assert HISTOGRAM_EDGES.tolist() == [2.0**exponent for exponent in range(-10, 11)]
    activity = Activity()
    activity.update(Maps(HISTOGRAM_EDGES.view(1, 1, 1, -1)))
    assert activity.result()["histogram"][0].tolist() == [0, 0, *[1] * 21]


@settings(max_examples=60, deadline=None, database=None)
@given(
    values=st.lists(
        st.one_of(st.floats(0, 5000, width=32), st.integers(-14, 14).map(lambda e: 2.0**e), st.just(-0.0)),
        min_size=1,
        max_size=24,
    ),
    cut=st.integers(0, 24),
)
def test_activity_of_any_values(values, cut):
    activity = Activity()
    for part in (values[:cut], values[cut:]):
        if part:
            activity.update(Maps(torch.tensor([part, [2 * value for value in part]]).T[:, :, None, None]))
    result = activity.result()
    for channel, scale in enumerate((1, 2)):
        scaled = [scale * value for value in values]
        assert result["maximum"][channel] == max(scaled)
        assert result["mean"][channel].item() == pytest.approx(sum(scaled) / len(scaled), rel=1e-12)
        assert result["positive_count"][channel] == sum(value > 0 for value in scaled)
        expected = np.bincount([bin_of(value) for value in scaled], minlength=23)
        assert result["histogram"][channel].tolist() == expected.tolist()


@settings(max_examples=60, deadline=None, database=None)
@given(width=st.sampled_from([32, 64]), layout=st.sampled_from(list(LAYOUTS)), data=st.data())
def test_activity_of_any_finite_numbers(width, layout, data):
    most = 3e38 if width == 32 else 1e300
    number = st.floats(-most, most) if width == 64 else st.floats(-most, most).map(lambda x: float(np.float32(x)))
    numbers = data.draw(st.lists(number, min_size=1, max_size=20))
    dtype = torch.float32 if width == 32 else torch.float64
    responses = torch.tensor([numbers, [-x for x in numbers]], dtype=dtype)[None, :, None]
    activity = Activity()
    activity.update(Maps(LAYOUTS[layout](responses)))
    assert_activity_is(activity, [numbers, [-x for x in numbers]])


@pytest.mark.parametrize("dtype", PALETTE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (9, 1, 1, 1), (5, 3, 1, 9), (4, 70, 3, 5), (13, 2, 17, 1), (5, 2, 36, 30)]
)
def test_any_shape_and_memory_format(dtype, layout, shape):
    responses = some(shape, dtype, 13, sum(shape))
    activity = Activity()
    activity.update(Maps(LAYOUTS[layout](responses)))
    assert_activity_is(activity, by_channel(responses))


def test_constant_maps():
    responses = torch.tensor([-1.0, -0.0, 0.0, 1e-45, 0.5, 3e38]).view(1, 6, 1, 1).expand(3, 6, 4, 4)
    activity = Activity()
    activity.update(Maps(responses))
    assert_activity_is(activity, by_channel(responses))
    assert activity.result()["positive_count"].tolist() == [0, 0, 0, 48, 48, 48]
    assert activity.result()["maximum"][0] == -1  # of a layer without ReLU


def test_bfloat16_responses_count_as_the_numbers_that_they_are():
    responses = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    activity = Activity()
    activity.update(Maps(responses))
    assert_activity_is(activity, by_channel(responses))


# --------------------------------------------------------------------------------------------------- algebra


@settings(max_examples=80, deadline=None, database=None)
@given(
    split=splits(10),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    dtype=st.sampled_from(list(PALETTE)),
    levels=st.integers(1, 13),
    seed=st.integers(0, 10**6),
    order=st.randoms(use_true_random=False),
)
def test_any_split_in_any_order_counts_the_same(split, shape, dtype, levels, seed, order):
    n, batches = split
    responses = some((n, *shape), dtype, levels, seed)
    activity = Activity()
    order.shuffle(batches)
    for begin, end in batches:
        layout = order.choice(list(LAYOUTS.values()))
        activity.update(Maps(layout(responses[begin:end])))
    assert_activity_is(activity, by_channel(responses))


@settings(max_examples=40, deadline=None, database=None)
@given(split=splits(8), dtype=st.sampled_from(list(PALETTE)), seed=st.integers(0, 10**6))
def test_going_on_from_a_state_changes_no_bit(split, dtype, seed):
    n, batches = split
    responses = some((n, 3, 2, 3), dtype, 13, seed)

    def passed(stop):
        activity = Activity()
        for number, (begin, end) in enumerate(batches):
            if number == stop:
                state = through_a_file(activity.state_dict())
                activity = Activity()
                activity.load_state_dict(state)
            activity.update(Maps(responses[begin:end]))
        return bits(*activity.result().values(), *activity.state_dict().values())

    assert all(passed(stop) == passed(None) for stop in range(len(batches)))


def test_a_state_replaces_what_was_there():
    one, other = Activity(), Activity()
    one.update(Maps(torch.ones(1, 2, 3, 3)))
    other.update(Maps(torch.full((4, 2, 3, 3), 9.0)))
    other.load_state_dict(one.state_dict())
    assert_activity_is(other, [[1.0] * 9] * 2)
    other.load_state_dict(Activity().state_dict())
    other.update(Maps(torch.full((1, 2, 1, 1), 0.5)))
    assert_activity_is(other, [[0.5]] * 2)


def test_a_state_stays_as_it_was():
    activity = Activity()
    activity.update(Maps(torch.ones(1, 2, 3, 3)))
    state = activity.state_dict()
    before = bits(*state.values())
    activity.update(Maps(torch.full((1, 2, 3, 3), 2.0)))
    assert bits(*state.values()) == before


def test_what_was_loaded_goes_its_own_way():
    first, second = torch.rand(2, 3, 4, 4), torch.rand(1, 3, 2, 2)
    activity, loaded = Activity(), Activity()
    activity.update(Maps(first))
    loaded.load_state_dict(activity.state_dict())
    loaded.update(Maps(second))
    assert_activity_is(activity, by_channel(first))
    loaded.result()["histogram"].zero_()
    loaded.result()["maximum"].zero_()
    assert_activity_is(loaded, [a + b for a, b in zip(by_channel(first), by_channel(second), strict=True)])


def test_what_was_found_in_inference_mode_can_be_used_outside_it():
    activity, loaded = Activity(), Activity()
    with torch.inference_mode():
        activity.update(Maps(torch.ones(1, 2, 3, 3)))
        activity.update(Maps(torch.full((1, 2, 3, 3), 3.0)))
        loaded.load_state_dict(activity.state_dict())
    for each in (activity, loaded):
        each.update(Maps(torch.zeros(1, 2, 1, 1)))
        for found in each.result().values():
            found.add_(1)
        assert_activity_is(each, [[1.0] * 9 + [3.0] * 9 + [0.0]] * 2)
