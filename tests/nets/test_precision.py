"""How exactly a network multiplies, and that everything is put back."""

import contextlib

import pytest
import torch
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.nets.precision import PRECISIONS, multiplying

CPU = torch.device("cpu")
FLAGS = [(False, False), (False, True), (True, False), (True, True)]


def flags():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def set_flags(values):
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = values


@pytest.fixture(autouse=True)
def _put_back():
    before = flags()
    yield
    set_flags(before)


@pytest.mark.parametrize("before", FLAGS)
def test_float32_turns_tf32_off_and_puts_it_back(before):
    set_flags(before)
    with multiplying("float32", CPU):
        assert flags() == (False, False)
    assert flags() == before


@pytest.mark.parametrize("before", FLAGS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_everything_is_put_back_after_an_error(before, precision):
    set_flags(before)
    with pytest.raises(ZeroDivisionError), multiplying(precision, CPU):
        raise ZeroDivisionError
    assert flags() == before
    assert not torch.is_autocast_enabled("cpu")
    set_flags((False, False))
    with multiplying("float32", CPU), pytest.raises(ZeroDivisionError), multiplying(precision, CPU):
        raise ZeroDivisionError
    assert flags() == (False, False)


@pytest.mark.parametrize("before", FLAGS)
def test_one_inside_another(before):
    set_flags(before)
    with multiplying("float32", CPU):
        set_flags((True, False))  # by somebody else
        with multiplying("float32", CPU):
            assert flags() == (False, False)
        assert flags() == (True, False)
    assert flags() == before


def test_float32_multiplies_in_the_type_of_the_network():
    images, weight = torch.rand(1, 3, 5, 5), torch.rand(2, 3, 3, 3)
    for dtype in (torch.float32, torch.float64):
        with multiplying("float32", CPU):
            found = F.conv2d(images.to(dtype), weight.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), F.conv2d(images, weight))
    with multiplying("float32", CPU):
        assert torch.equal(F.conv2d(images, weight), F.conv2d(images, weight))


def test_bfloat16_multiplies_in_bfloat16():
    images, weight = torch.rand(1, 3, 5, 5), torch.rand(2, 3, 3, 3)
    with multiplying("bfloat16", CPU):
        assert torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        found = F.conv2d(images, weight)
        assert (images @ images).dtype == torch.bfloat16
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.conv2d(images, weight), rtol=0.02, atol=0)
    assert not torch.is_autocast_enabled("cpu")
    assert F.conv2d(images, weight).dtype == torch.float32


@pytest.mark.parametrize("before", FLAGS)
def test_bfloat16_leaves_the_flags_alone(before):
    set_flags(before)
    with multiplying("bfloat16", CPU):
        assert flags() == before
    assert flags() == before


def test_the_device_decides_whose_autocast(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda *arguments: contextlib.nullcontext(asked.append(arguments)))
    for device in ("cuda:1", "cpu"):
        with multiplying("bfloat16", torch.device(device)):
            pass
    assert asked == [("cuda", torch.bfloat16), ("cpu", torch.bfloat16)]


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("float23", r"^unknown precision 'float23'\. Did you mean 'float32'\? Choose from: float32, bfloat16\.$"),
        ("bfloat61", r"^unknown precision 'bfloat61'\. Did you mean 'bfloat16'\?"),
        ("bf16", r"^unknown precision 'bf16'\. Did you mean 'bfloat16'\?"),
        ("", r"^unknown precision ''\. Choose from"),
    ],
)
def test_an_unknown_precision_is_refused_with_the_nearest_name(precision, message):
    set_flags((True, True))
    with pytest.raises(RfvizError, match=message), multiplying(precision, CPU):
        pytest.fail("it must not come to this")
    assert flags() == (True, True)
