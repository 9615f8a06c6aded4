"""What is wanted of feature maps, against loops over the numbers, however they lie in memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LAYOUTS, bits

from rfviz.errors import RfvizError
from rfviz.kernels.responses import maps as module
from rfviz.kernels.responses.cores import ALONE
from rfviz.kernels.responses.maps import Maps

FLOATS = (torch.float32, torch.float64)


@pytest.fixture(autouse=True, scope="module")
def _two_images_at_a_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", 1)
        yield


def loops(values):
    """Maximum, its first position and the sum of every image and channel."""
    found = [[of_channel.flatten().tolist() for of_channel in of_image] for of_image in values]
    maxima = [[max(numbers) for numbers in of_image] for of_image in found]
    first = [[numbers.index(max(numbers)) for numbers in of_image] for of_image in found]
    sums = [[sum(numbers) for numbers in of_image] for of_image in found]
    return maxima, first, sums


@settings(max_examples=80, deadline=None, database=None)
@given(
    shape=st.tuples(st.integers(1, 11), st.integers(1, 7), st.integers(1, 6), st.integers(1, 6)),
    layout=st.sampled_from(list(LAYOUTS)),
    dtype=st.sampled_from(FLOATS),
    levels=st.integers(1, 9),
    seed=st.integers(0, 10**6),
)
def test_maxima_sums_and_first_positions(shape, layout, dtype, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-levels, levels, shape, generator=generator).to(dtype) / 4
    maps = Maps(LAYOUTS[layout](values))
    n, channels = shape[:2]
    maxima, first, sums = loops(values)
    assert maps.maxima.tolist() == maxima
    assert maps.summary[1].tolist() == sums
    assert maps.summary[1].dtype == torch.float64 and maps.maxima.dtype == dtype
    pairs = [(i, channel) for i in range(n) for channel in range(channels)]
    for some in (pairs, pairs[::5], pairs[-1:], pairs[: len(pairs) // 4], pairs[: len(pairs) // 4 + 1], []):
        image, channel = torch.tensor(some, dtype=torch.int64).reshape(-1, 2).T
        assert maps.first_maximum(image, channel).tolist() == [first[i][channel] for i, channel in some]


@settings(max_examples=80, deadline=None, database=None)
@given(
    shape=st.tuples(st.integers(1, 11), st.integers(1, 7), st.integers(1, 6), st.integers(1, 6)),
    layout=st.sampled_from(list(LAYOUTS)),
    data=st.data(),
    seed=st.integers(0, 10**6),
)
def test_only_neurons_in_some_rows_and_columns_compete(shape, layout, data, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, shape, generator=generator).float()
    y, x = (slice(begin := data.draw(st.integers(0, n - 1)), data.draw(st.integers(begin + 1, n))) for n in shape[2:])
    for summary_first in (False, True):
        maps = Maps(LAYOUTS[layout](values), y, x)
        if summary_first:
            assert maps.summary[0].tolist() == values.amax((0, 2, 3)).tolist()
        maxima, first, _ = loops(values[:, :, y, x])
        assert maps.maxima.tolist() == maxima
        image, channel = torch.ones(shape[:2]).nonzero(as_tuple=True)
        assert maps.first_maximum(image, channel).tolist() == [each for of_image in first for each in of_image]
        assert maps.corner == (y.start, x.start)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (8, 3, 30, 20), (11, 5, 36, 30), (9, 2, 7, 7)])
def test_on_several_cores_every_bit_is_the_same(two_cores, monkeypatch, layout, shape):
    values = LAYOUTS[layout](torch.randn(shape, generator=torch.Generator().manual_seed(0)).exp() ** 4)
    one, two = (Maps(values, slice(1, None), cores=cores) for cores in (ALONE, two_cores))
    assert len(two._each(lambda part: part)) == -(-shape[0] // 2)
    assert bits(*one.summary, one.maxima) == bits(*two.summary, two.maxima)
    monkeypatch.setattr(module, "AT_ONCE", 1 << 20)
    whole = Maps(values, slice(1, None))
    assert len(whole._each(lambda part: part)) == 1
    assert bits(*one.summary, one.maxima) == bits(*whole.summary, whole.maxima)


@pytest.mark.parametrize(
    ("shape", "parts"),
    [((32, 64, 56, 56), [4] * 8), ((32, 128, 28, 28), [8] * 4), ((5, 512, 7, 7), [4, 1]), ((3, 64, 112, 112), [2, 1])],
)
def test_cores_get_equal_shares(two_cores, monkeypatch, shape, parts):
    monkeypatch.setattr(module, "AT_ONCE", 1 << 20)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    found = Maps(torch.empty(1).expand(shape), cores=two_cores)._each(lambda part: range(shape[0])[part])
    assert [len(part) for part in found] == parts


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_neither_of_the_usual_memory_formats_is_copied(layout):
    values = LAYOUTS[layout](torch.randn(2, 3, 4, 5))
    maps = Maps(values)
    assert maps._flat(maps.values).data_ptr() == values.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_types_become_float32(dtype, layout):
    values = torch.tensor([[[[1, 3], [3, -2]]], [[[-5, -4], [0, 0]]]])
    maps = Maps(LAYOUTS[layout](values.to(dtype)))
    assert maps.values.dtype == maps.maxima.dtype == torch.float32
    assert maps.maxima.tolist() == [[3], [0]] and maps.summary[1].tolist() == [[5], [-9]]


def test_types_are_kept_where_they_are_exact():
    assert [Maps(torch.ones(1, 1, 1, 1, dtype=dtype)).values.dtype for dtype in FLOATS] == list(FLOATS)
    assert Maps(torch.full((1, 1, 1, 1), 1 + 2.0**-52, dtype=torch.float64)).maxima.item() > 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_zeros_of_both_signs_tie(layout):
    values = torch.tensor([[-0.0, 0.0, -1.0], [0.0, -0.0, 0.0], [-1.0, -0.0, 0.0], [-1.0, 0.0, -0.0]])[:, None, None]
    maps = Maps(LAYOUTS[layout](values))
    assert maps.maxima.tolist() == [[0]] * 4
    first = [0, 0, 1, 1]
    channel = torch.zeros(4, dtype=torch.int64)
    assert maps.first_maximum(torch.arange(4), channel).tolist() == first
    for i in range(4):  # few pairs are looked up in another way than many
        assert maps.first_maximum(torch.tensor([i]), channel[:1]).tolist() == [first[i]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_smallest_numbers_are_not_zero(layout):
    smallest = 2.0**-149
    values = torch.tensor([[[[0.0, smallest, -smallest]]], [[[-smallest, -0.0, -smallest]]]])
    maps = Maps(LAYOUTS[layout](values))
    assert maps.maxima.tolist() == [[smallest], [0]]
    assert maps.summary[1].tolist() == [[0], [-2 * smallest]]
    assert maps.first_maximum(torch.tensor([0, 1]), torch.tensor([0, 0])).tolist() == [1, 1]


# ------------------------------------------------------------------------------------------ NaN and infinity


@pytest.mark.parametrize("layout", LAYOUTS)
def test_huge_numbers_whose_sum_overflows_float32(layout):
    huge = torch.finfo(torch.float32).max
    maps = Maps(LAYOUTS[layout](torch.full((6, 2, 3, 4), huge)))
    assert maps.summary[1].tolist() == [[12 * huge] * 2] * 6
    maps.refuse_not_finite("conv1", torch.arange(6))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_finite_numbers_whose_sum_overflows_are_not_refused(layout):
    huge = torch.finfo(torch.float64).max
    values = torch.full((6, 2, 3, 4), huge, dtype=torch.float64)
    Maps(LAYOUTS[layout](values)).refuse_not_finite("conv1", torch.arange(6))
    Maps(LAYOUTS[layout](-values)).refuse_not_finite("conv1", torch.arange(6))
    values[4, 1, 2, 2] = torch.nan  # the image to blame is this one, not the first whose sum is infinite
    with pytest.raises(RfvizError, match=r"^image 4: "):
        Maps(LAYOUTS[layout](values)).refuse_not_finite("conv1", torch.arange(6))


@settings(max_examples=80, deadline=None, database=None)
@given(
    n=st.integers(1, 11),
    layout=st.sampled_from(list(LAYOUTS)),
    dtype=st.sampled_from(FLOATS),
    bad=st.lists(
        st.tuples(*[st.integers(0, 100)] * 4, st.sampled_from([torch.nan, torch.inf, -torch.inf])), max_size=4
    ),
)
def test_the_first_image_that_is_not_finite_is_named(n, layout, dtype, bad):
    values = torch.randn(n, 3, 2, 5).to(dtype)
    for i, channel, y, x, value in bad:
        values[i % n, channel % 3, y % 2, x % 5] = value
    index = 7 * torch.arange(n) + 3
    maps = Maps(LAYOUTS[layout](values))
    if not bad:
        maps.refuse_not_finite("layer1.0", index)
        return
    first = 7 * min(i % n for i, *_ in bad) + 3
    with pytest.raises(RfvizError, match=rf"^image {first}: layer 'layer1\.0' responds with NaN or infinity") as error:
        maps.refuse_not_finite("layer1.0", index)
    assert len(str(error.value).splitlines()) == 1


def test_infinities_that_cancel_are_refused():
    values = torch.tensor([1.0, torch.inf, -torch.inf, 1.0]).view(1, 1, 2, 2)
    with pytest.raises(RfvizError, match=r"^image 5: "):
        Maps(values).refuse_not_finite("conv1", torch.tensor([5]))
