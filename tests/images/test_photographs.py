"""The bundled photographs: real, all there without a network, and cut so that no pixel serves twice."""

import itertools
import socket

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfviz.errors import RfvizError
from rfviz.images import photographs


def coordinates(image: torch.Tensor) -> torch.Tensor:
    """Return an "image" whose pixels are their own row and column, with a third value of 0."""
    height, width = image.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)])


def places(part: torch.Tensor) -> set[tuple[int, int]]:
    """Return where in the photograph the pixels of a cut come from."""
    return set(zip(part[0].flatten().tolist(), part[1].flatten().tolist(), strict=True))


def test_the_names():
    assert len(photographs.CLASSES) == len(set(photographs.CLASSES)) == 14
    assert (len(photographs.COLOUR), len(photographs.GREY)) == (8, 6)


@pytest.mark.parametrize("name", photographs.CLASSES)
def test_a_photograph_is_read_without_a_network(name, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    image = photographs.photograph.__wrapped__(name)  # not the kept one
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    assert 256 <= min(image.shape[1:]) <= 512
    assert image.float().std() > 8  # a picture, not a plain area
    equal_colours = torch.equal(image[0], image[1]) and torch.equal(image[1], image[2])
    assert equal_colours == (name in photographs.GREY)
    assert torch.equal(image, photographs.photograph(name))


@pytest.mark.parametrize("name", ["astronaut", "coins", "stereo_motorcycle"])
def test_small_photographs_are_as_scikit_image_gives_them(name):
    original = getattr(skimage.data, name)()
    original = original[0] if isinstance(original, tuple) else original
    image = photographs.photograph(name)
    assert np.array_equal(
        image.permute(1, 2, 0).numpy(), np.broadcast_to(np.atleast_3d(original), (*original.shape[:2], 3))
    )


def test_a_large_photograph_is_reduced_as_a_whole():
    original = torch.from_numpy(skimage.data.retina().astype(np.float32))  # (1411, 1411, 3)
    image = photographs.photograph("retina")
    assert image.shape == (3, 512, 512)
    quarters = [part.float().mean((1, 2)) for half in image.chunk(2, 1) for part in half.chunk(2, 2)]
    expected = [part.mean((0, 1)) for half in original.chunk(2, 0) for part in half.chunk(2, 1)]
    torch.testing.assert_close(torch.stack(quarters), torch.stack(expected), rtol=0, atol=1.5)


SOME = [
    pytest.param(name, marks=() if name in ("astronaut", "retina", "chelsea") else pytest.mark.thorough)
    for name in photographs.CLASSES
]
"""A square one, one that is reduced, and one that is wider than high; the others are a larger sample."""


@pytest.mark.parametrize("name", SOME)
def test_training_and_evaluation_share_no_pixel(name):
    where = coordinates(photographs.photograph(name))
    train, evaluation = photographs.parts(where)
    tiles = photographs.tiles(evaluation, 128)
    train_places, evaluation_places = places(train), places(evaluation)
    assert train_places.isdisjoint(evaluation_places)
    assert len(train_places) + len(evaluation_places) == where[0].numel()  # and no pixel is lost
    assert len(train_places) == pytest.approx(2 / 3 * where[0].numel(), rel=0.01)
    assert set().union(*(places(tile) for tile in tiles)) <= evaluation_places


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("size", [pytest.param(64, marks=pytest.mark.thorough), 128])
def test_tiles_share_no_pixel_and_are_full_size(name, size):
    _, evaluation = photographs.parts(coordinates(photographs.photograph(name)))
    tiles = photographs.tiles(evaluation, size)
    assert all(tile.shape == (3, size, size) for tile in tiles)
    for one, other in itertools.combinations(tiles, 2):
        assert places(one).isdisjoint(places(other))
    height, width = evaluation.shape[1:]
    assert len(tiles) == (height // size) * (width // size)  # as many as fit


@pytest.mark.parametrize("tile", [64, 128])
def test_load_gives_exactly_these_pixels(tile):
    """What is loaded is the photograph at the coordinates of the cuts, so what holds for these holds for it."""
    split = photographs.load(tile)
    expected, labels = [], []
    for label, name in enumerate(photographs.CLASSES):
        image = photographs.photograph(name)
        train, evaluation = photographs.parts(coordinates(image))
        assert torch.equal(split.train.images[label], image[:, train[0], train[1]])
        for cut in photographs.tiles(evaluation, tile):
            expected.append(image[:, cut[0], cut[1]])
            labels.append(label)
    assert list(split.train.labels) == list(range(14))
    assert list(split.evaluation.labels) == labels
    assert split.train.classes == split.evaluation.classes == photographs.CLASSES
    assert len(split.evaluation) == len(expected)
    assert all(torch.equal(got, image) for got, image in zip(split.evaluation.images, expected, strict=True))


def test_load_is_the_same_every_time():
    first = photographs.load(64, 5)
    photographs.photograph.cache_clear()
    second = photographs.load(64, 5)
    assert first.train.fingerprint == second.train.fingerprint
    assert first.evaluation.fingerprint == second.evaluation.fingerprint
    assert first.train.fingerprint != first.evaluation.fingerprint
    assert photographs.load(128, 5).evaluation.fingerprint != first.evaluation.fingerprint


def test_load_takes_the_first_photographs():
    split = photographs.load(64, classes=3)
    assert split.train.classes == photographs.CLASSES[:3]
    assert set(split.evaluation.labels) == {0, 1, 2}


def test_the_cut_runs_across_the_longer_side():
    wide, high = torch.zeros(3, 30, 90), torch.zeros(3, 90, 30)
    assert [tuple(part.shape) for part in photographs.parts(wide)] == [(3, 30, 60), (3, 30, 30)]
    assert [tuple(part.shape) for part in photographs.parts(high)] == [(3, 60, 30), (3, 30, 30)]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_tiles_of_any_image_lie_in_it_and_apart(height, width, size):
    where = coordinates(torch.zeros(3, height, width))
    tiles = photographs.tiles(where, size)
    assert len(tiles) == max(1, height // size) * max(1, width // size)
    assert {tuple(tile.shape) for tile in tiles} == {(3, min(size, height), min(size, width))}
    taken = [place for tile in tiles for place in places(tile)]
    assert len(set(taken)) == len(taken)


def test_tiles_are_spread_evenly():
    starts = [int(tile[1, 0, 0]) for tile in photographs.tiles(coordinates(torch.zeros(3, 10, 43)), 10)]
    assert starts == [0, 11, 21, 32]  # gaps of 0.75 px, half of one at either end


def test_more_photographs_than_there_are_are_refused():
    with pytest.raises(RfvizError, match=r"^classes is 15: there are 14 photographs\.$"):
        photographs.load(64, 15)
