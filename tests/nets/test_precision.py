"""TF32 is off where numbers must be exact, and everything is put back."""

import pytest
import torch

from rfviz.nets.precision import exact

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")
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
def test_tf32_is_off_on_a_gpu_and_is_put_back(before):
    set_flags(before)
    with exact(GPU):
        assert flags() == (False, False)
    assert flags() == before
    with exact(CPU):
        assert flags() == before


@pytest.mark.parametrize("before", FLAGS)
def test_everything_is_put_back_after_an_error(before):
    set_flags(before)
    with pytest.raises(ZeroDivisionError), exact(GPU):
        raise ZeroDivisionError
    assert flags() == before


@pytest.mark.parametrize("before", FLAGS)
def test_one_inside_another(before):
    set_flags(before)
    with exact(GPU):
        set_flags((True, False))  # by somebody else
        with exact(GPU):
            assert flags() == (False, False)
        assert flags() == (True, False)
    assert flags() == before
