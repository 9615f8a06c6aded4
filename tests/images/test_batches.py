"""Batches against plain lists of image numbers."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from rfviz.errors import RfvizError
from rfviz.images.batches import AsTensors, Batch, available_cores, batches, image_of, is_indexed

SIZES = [(2, 2), (3, 2), (2, 3)]


class Numbered:
    """A data set of nothing but a length and numbered items."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if not 0 <= index < len(self.images):
            raise IndexError
        return self.images[index]


def numbered(n, sizes=SIZES[:1]):
    """Images that show their own number in 64ths; the size changes from image to image."""
    return [torch.full((3, *sizes[i % len(sizes)]), i / 64) for i in range(n)]


WAYS = {
    "tensor": torch.stack,
    "list": list,
    "pairs": lambda images: [(image, 7) for image in images],
    "lists of two": lambda images: [[image, "label"] for image in images],
    "data set": lambda images: TensorDataset(torch.stack(images), torch.arange(len(images))),
    "own data set": Numbered,
}
"""Ways to give images of one size that can be asked for by number."""

STREAMS = {
    "tensors": iter,
    "generator of pairs": lambda parts: ((part, "label") for part in parts),
    "lists of two": lambda parts: iter([[part, torch.zeros(len(part))] for part in parts]),
}


def numbers(found):
    """The image numbers of every batch, after a look at the images themselves."""
    for batch in found:
        assert batch.index.dtype == torch.int64 and batch.images.shape[1] == 3
        assert batch.images.flatten(1).tolist() == [[i / 64] * batch.images[0].numel() for i in batch.index.tolist()]
    return [batch.index.tolist() for batch in found]


def cut(order, batch_size, share=(0, 1), skip=0):
    """What is expected: the batches of a share, as lists of numbers, without those that are skipped."""
    rank, processes = share
    parts = [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]
    return [part for number, part in enumerate(parts) if number % processes == rank][skip:]


@st.composite
def shares(draw):
    processes = draw(st.integers(1, 4))
    return draw(st.integers(0, processes - 1)), processes


# ------------------------------------------------------------------------------------------------- by number


@settings(max_examples=80, deadline=None, database=None)
@given(
    n=st.integers(1, 12),
    batch_size=st.integers(1, 14),
    way=st.sampled_from(list(WAYS)),
    share=shares(),
    skip=st.integers(0, 5),
)
def test_images_that_can_be_asked_for_by_number(n, batch_size, way, share, skip):
    found = list(batches(WAYS[way](numbered(n)), batch_size, share=share, skip=skip))
    assert numbers(found) == cut(list(range(n)), batch_size, share, skip)
    assert all(batch.complete for batch in found)


@settings(max_examples=80, deadline=None, database=None)
@given(
    chosen=st.one_of(
        st.lists(st.integers(0, 11), min_size=1, max_size=14),
        st.builds(range, st.integers(0, 5), st.integers(6, 12), st.integers(1, 4)),
        st.builds(range, st.integers(6, 11), st.integers(-1, 5), st.integers(-4, -1)),
        st.lists(st.integers(0, 11), min_size=1, max_size=14).map(tuple),
    ),
    batch_size=st.integers(1, 14),
    way=st.sampled_from(list(WAYS)),
    share=shares(),
    skip=st.integers(0, 3),
)
def test_only_some_images_in_any_order(chosen, batch_size, way, share, skip):
    found = list(batches(WAYS[way](numbered(12)), batch_size, indices=chosen, share=share, skip=skip))
    assert numbers(found) == cut(list(chosen), batch_size, share, skip)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("some", [range(12), range(3, 9), range(0, 12, 2), range(1, 11, 3), range(11, -1, -1)])
def test_ranges_of_any_step(way, some):
    for batch_size in (1, 4, 20):
        assert numbers(list(batches(WAYS[way](numbered(12)), batch_size, indices=some))) == cut(list(some), batch_size)


@settings(max_examples=60, deadline=None, database=None)
@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=12),
    batch_size=st.integers(1, 14),
    share=shares(),
    skip=st.integers(0, 3),
    labels=st.booleans(),
)
def test_mixed_sizes_divide_a_batch_where_the_size_changes(sizes, batch_size, share, skip, labels):
    images = [torch.full((3, *size), i / 64) for i, size in enumerate(sizes)]
    found = list(batches([(image, 1) for image in images] if labels else images, batch_size, share=share, skip=skip))
    numbers(found)
    expected = []  # numbers, size and whether nothing is still to come of what was loaded together
    for part in cut(list(range(len(sizes))), batch_size, share, skip):
        for i in part:
            if i == part[0] or sizes[i] != sizes[i - 1]:
                expected.append(([], sizes[i], False))
            expected[-1][0].append(i)
        expected[-1] = (*expected[-1][:2], True)
    assert [(b.index.tolist(), tuple(b.images.shape[2:]), b.complete) for b in found] == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    data_set = [(image, 3) for image in numbered(11, SIZES)]
    for options in ({}, {"indices": [9, 0, 3, 6, 1, 4, 5]}, {"share": (1, 2), "skip": 1}):
        alone = list(batches(data_set, 3, **options))
        found = list(batches(data_set, 3, workers=workers, **options))
        assert numbers(found) == numbers(alone)
        assert [batch.complete for batch in found] == [batch.complete for batch in alone]


def test_photographs(tiles):
    found = list(batches(tiles, 50))
    assert torch.cat([batch.index for batch in found]).tolist() == list(range(len(tiles)))
    assert torch.equal(torch.cat([batch.images for batch in found]), torch.stack([image for image, _ in tiles]))


# --------------------------------------------------------------------------------------------------- streams


@settings(max_examples=60, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=9),
    way=st.sampled_from(list(STREAMS)),
    share=shares(),
    skip=st.integers(0, 5),
)
def test_a_stream_brings_batches_of_its_own(lengths, way, share, skip):
    parts = torch.arange(sum(lengths)).split(lengths)
    stream = STREAMS[way]([torch.stack([torch.full((3, 2, 2), i / 64) for i in part]) for part in parts])
    found = list(batches(stream, 1000, share=share, skip=skip))
    rank, processes = share
    assert numbers(found) == [part.tolist() for part in parts][rank::processes][skip:]
    assert all(batch.complete for batch in found)


def test_a_stream_may_mix_sizes_and_come_from_a_data_loader():
    found = batches(iter([torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 5, 6)]), 1)
    assert [(batch.index.tolist(), batch.images.shape[2:]) for batch in found] == [([0, 1], (4, 4)), ([2], (5, 6))]
    loader = DataLoader(TensorDataset(torch.stack(numbered(7)), torch.arange(7)), 3)
    assert not is_indexed(loader)
    for _ in range(2):  # it can be gone through again
        assert numbers(list(batches(loader, 1))) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_stream_is_not_read_ahead():
    seen = []

    def stream():
        for i in range(3):
            seen.append(i)
            yield torch.zeros(1, 3, 2, 2)

    found = batches(stream(), 1)
    assert seen == []
    next(found)
    assert seen == [0]


def test_is_indexed():
    assert all(is_indexed(way(numbered(3))) for way in WAYS.values())
    assert not any(is_indexed(way([torch.zeros(1, 3, 2, 2)])) for way in STREAMS.values())
    assert not is_indexed({1, 2})  # a length, but no numbers


class Stream(IterableDataset):
    """A stream that knows its length; to be asked for a number is an error, as torch has it."""

    def __init__(self, parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts)

    def __iter__(self):
        return iter(self.parts)


def test_a_stream_may_have_a_length_and_empty_batches():
    parts = [torch.rand(count, 3, 2, 2) for count in (2, 0, 1, 0)]
    assert not is_indexed(Stream(parts))
    found = list(batches(Stream(parts), 2))
    assert [batch.index.tolist() for batch in found] == [[0, 1], [2]]
    (after,) = batches(Stream(parts), 2, skip=1)  # of the batches that were seen
    assert torch.equal(after.images, parts[2])
    with pytest.raises(RfvizError, match="no images"):
        list(batches(Stream(parts[1:2]), 2))


# ------------------------------------------------------------------------------------------------ shares, skip


@settings(max_examples=60, deadline=None, database=None)
@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    processes=st.integers(1, 5),
    kind=st.sampled_from(["data set", "tensor", "stream", "some of them"]),
)
def test_all_shares_together_are_everything_in_order(sizes, batch_size, processes, kind):
    images = [torch.full((3, *(SIZES[0] if kind == "tensor" else size)), i / 64) for i, size in enumerate(sizes)]
    some = list(range(len(images)))[::-2] if kind == "some of them" else None

    def share(rank):
        given_ = (image[None] for image in images) if kind == "stream" else images
        given_ = torch.stack(images) if kind == "tensor" else given_
        loaded = [[]]
        for batch in batches(given_, batch_size, indices=some, share=(rank, processes)):
            loaded[-1] += batch.index.tolist()
            if batch.complete:
                loaded.append([])
        assert loaded.pop() == []
        return loaded

    every = [share(rank) for rank in range(processes)]
    in_turn = [part for turn in range(len(images)) for each in every for part in each[turn : turn + 1]]
    assert [i for part in in_turn for i in part] == (list(range(len(images))) if some is None else some)
    assert max(map(len, every)) - min(map(len, every)) <= 1


@settings(max_examples=60, deadline=None, database=None)
@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    share=shares(),
    stop=st.integers(0, 12),
    stream=st.booleans(),
)
def test_after_any_complete_batch_one_may_stop_and_go_on(sizes, batch_size, share, stop, stream):
    images = [torch.full((3, *size), i / 64) for i, size in enumerate(sizes)]

    def some(skip=0):
        return list(batches((i[None] for i in images) if stream else images, batch_size, share=share, skip=skip))

    whole = some()
    seen = whole[:stop]
    while seen and not seen[-1].complete:
        seen.pop()
    rest = some(skip=sum(batch.complete for batch in seen))
    assert numbers(seen) + numbers(rest) == numbers(whole)


def test_a_share_may_be_empty():
    images = numbered(3)
    for way in (torch.stack(images), images, [(image, 0) for image in images]):
        assert list(batches(way, 2, share=(2, 3))) == []
        assert list(batches(way, 2, skip=2)) == []
    assert list(batches(iter([torch.stack(images)]), 2, share=(1, 2))) == []


def test_images_are_pinned_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 100)
    images = numbered(3, SIZES)
    for pinned, batch in zip(batches(images, 2, pin_memory=True), batches(images, 2), strict=True):
        assert torch.equal(pinned.images, batch.images + 100)
        assert torch.equal(pinned.index, batch.index) and pinned.complete == batch.complete


def test_a_batch_is_complete_if_nothing_else_is_said():
    assert Batch(torch.tensor([0]), torch.zeros(1, 3, 2, 2)).complete


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x * 255).to(torch.uint8), r"image 0: expected floating-point RGB.*uint8.*: divide by 255\.$"),
        (lambda x: x[:, :2], r"image 0: expected floating-point RGB.*\(5, 2, 64, 64\)"),
        (lambda x: x[0], r"image 0: expected floating-point RGB"),
        (lambda x: list(x[:, 0]), r"image 0: expected floating-point RGB"),
        (lambda x: [(image, 0) for image in (x * 255).to(torch.uint8)], r"image 0: expected floating-point RGB"),
        (lambda x: [x[0], x[1], x[2, :2]], r"image 2: expected floating-point RGB.*\(1, 2, 64, 64\)"),
        (lambda x: iter([x[:4], x[4:].short()]), r"image 4: expected floating-point RGB"),
        (lambda x: iter([(x[:4], 0), (x[4:, :2], 0)]), r"image 4: expected floating-point RGB.*\(8, 2, 64, 64\)"),
        (lambda x: x[:0], "no images"),
        (lambda x: [], "no images"),
        (lambda x: iter([]), "no images"),
    ],
)
def test_what_is_no_rgb_image_is_refused(some_tiles, change, message):
    with pytest.raises(RfvizError, match=message) as error:
        list(batches(change(some_tiles), batch_size=5))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("way", ["tensor", "data set", "list"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x * 255,
            r"^image 0 has values from .* to 2\d\d, but RGB goes from 0 to 1: .* divide them by 255\.$",
        ),
        (lambda x: (x - 0.45) / 0.22, r"^image 0 has values from -2.* normalised already; .* as preprocess\.$"),
        (lambda x: x * 1.5, r"^image \d+ has values from .* to 1\.5, .*: clamp them to \[0, 1\]\.$"),
    ],
)
def test_values_that_are_no_rgb_are_refused_and_the_image_is_named(some_tiles, way, change, message):
    images = change(some_tiles)
    images[3, 0, 0, 0] = change(torch.ones(()))
    with pytest.raises(RfvizError, match=message):
        list(batches(WAYS[way](list(images)), 5))
    one = some_tiles.clone()
    one[7] = images[7] + (change(torch.ones(())) - images[7].max())
    with pytest.raises(RfvizError, match=r"^image 7 has values"):
        list(batches(WAYS[way](list(one)), 5))


@pytest.mark.parametrize("outside", [-5e-5, 1 + 5e-5])
def test_rounding_beyond_the_ends_passes(outside):
    assert len(list(batches(torch.full((2, 3, 4, 4), outside), 2))) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_pictures_are_as_good_as_tensors(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    (batch,) = batches([picture, (picture, 3)], 2)

    def expected(mode):
        return torch.from_numpy(np.atleast_3d(np.array(picture.convert(mode))).copy()).permute(2, 0, 1) / 255

    assert torch.equal(batch.images, expected("RGB").expand(2, -1, -1, -1))
    for colours, as_mode in {1: "L", 4: "RGBA", None: mode if mode in ("L", "RGBA") else "RGB"}.items():
        assert torch.equal(next(batches([picture], 2, colours=colours)).images[0], expected(as_mode))
        assert torch.equal(AsTensors([picture], colours)[0], expected(as_mode))


@pytest.mark.parametrize("type_", [np.uint16, np.int32])
def test_of_16_bits_the_upper_8_are_kept(type_):
    picture = Image.fromarray(np.linspace(0, 65535, 400).reshape(20, 20).astype(type_))
    assert picture.mode.startswith("I")
    (batch,) = batches([picture], 1)
    expected = torch.linspace(0, 255.996, 400).floor().view(20, 20) / 255
    torch.testing.assert_close(batch.images, expected.expand(1, 3, -1, -1), rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize(
    "values", [np.float32([[0, 1]]), np.int32([[0, 70000]]), np.int32([[-1, 500]]), np.int32([[0, 255]])]
)
def test_pictures_of_unknown_range_are_refused(values):
    with pytest.raises(RfvizError, match=r"^an image of mode '[FI]' has values from .*: give tensors in \[0, 1\]"):
        list(batches([Image.fromarray(values)], 1))


@pytest.mark.parametrize("name", ["few photos", Path("few photos")])
def test_a_folder_is_read_by_another_function(name):
    with pytest.raises(RfvizError, match=r"^images are 'few photos', a name: .*rfviz\.images\.folders\.photographs"):
        list(batches(name, 1))


def test_what_is_no_picture_is_refused():
    for wrong in (["a.jpg"], [np.zeros((3, 4, 4))], [None]):
        with pytest.raises(RfvizError, match=r"^an image is of type .*: give tensors \(3, H, W\) in \[0, 1\], or PIL"):
            list(batches(wrong, 2))


def test_no_images_asked_for():
    for images in (torch.stack(numbered(3)), numbered(3)):
        for none in ([], range(0), range(3, 1)):
            with pytest.raises(RfvizError, match="no images: give at least one"):
                list(batches(images, 2, indices=none))


def test_an_integer_image_among_others_is_refused():
    images = [*numbered(2), torch.full((3, 2, 2), 255, dtype=torch.uint8), *numbered(2)]
    with pytest.raises(
        RfvizError, match=r"^image 2: expected .* got torch.uint8 of shape \(1, 3, 2, 2\): divide by 255\.$"
    ):
        list(batches(images, 5))


def test_the_message_names_the_image_by_its_number_among_all():
    images = [*numbered(4), torch.zeros(3, 2, 2, dtype=torch.int32)]
    with pytest.raises(RfvizError, match=r"^image 4: expected .* got torch.int32 of shape \(1, 3, 2, 2\)\.$"):
        list(batches(images, 3, indices=[2, 4]))
    with pytest.raises(RfvizError, match=r"^image 3: "):
        list(batches(iter([torch.zeros(3, 3, 2, 2), torch.zeros(2, 2, 2, 2)]), 3, share=(1, 2)))


def test_available_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


def test_a_data_set_uses_up_nobodys_random_numbers():
    before = torch.get_rng_state()
    assert len(list(batches([torch.rand(3, 4, 4, generator=torch.Generator()) for _ in range(3)], 2))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_photographs_are_turned_upright():
    lying = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    lying.getexif()[0x0112] = 6  # to be turned clockwise
    assert torch.equal(image_of(lying), torch.from_numpy(np.rot90(np.array(lying), 3).copy()).permute(2, 0, 1) / 255)
