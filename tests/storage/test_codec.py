"""What is taken apart and put together again is what it was, types included."""

import dataclasses
import json
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rfviz.storage import codec


class Pair(NamedTuple):
    left: Tensor
    right: int


@dataclasses.dataclass(frozen=True)
class Inner:
    name: str
    values: Tensor | None
    box: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: dict[str, Inner]
    pairs: list[Pair]
    flags: tuple[bool, ...]
    note: str | None = None
    raw: bytes = b""
    facts: dict | None = None


def through_a_file(hint, value):
    tensors, values = codec.encode(value)
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())
    return codec.decode(hint, tensors, json.loads(json.dumps(values)))


tensors = st.lists(st.floats(-1, 1, width=32), max_size=4).map(lambda values: torch.tensor(values, dtype=torch.float32))
inners = st.builds(
    Inner, name=st.text(max_size=5), values=tensors | st.none(), box=st.tuples(st.floats(-9, 9), st.floats(-9, 9))
)
outers = st.builds(
    Outer,
    inner=st.dictionaries(st.text("abc.", min_size=1, max_size=4), inners, max_size=3),
    pairs=st.lists(st.builds(Pair, left=tensors, right=st.integers(-5, 5)), max_size=3),
    flags=st.lists(st.booleans(), max_size=3).map(tuple),
    note=st.none() | st.text(max_size=5),
    raw=st.binary(min_size=1, max_size=9),
    facts=st.none() | st.just({"a": [1, {"b": None}]}),
)


def same(a, b) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, each.name), getattr(b, each.name)) for each in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(outers)
def test_anything_comes_back_as_it_was(value):
    assert same(through_a_file(Outer, value), value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, 0.25), (list[dict], [{"a": 1}]), (dict[str, float], {"conv1": 0.5}), (Tensor, torch.arange(3)),
        (tuple[int, ...], ()), (tuple[int, float], (1, 2.5)),
        (list[Inner | None], [None, Inner("x", None, (0.0, 1.0))]),
    ],
)  # fmt: skip
def test_values_that_are_no_dataclass(hint, value):
    assert same(through_a_file(hint, value), value)


def test_tensors_come_out_detached():
    found = through_a_file(Pair, Pair(torch.ones(2, requires_grad=True), 1))
    assert not found.left.requires_grad


@pytest.mark.parametrize("values", [{"left": None}, {"left": None, "right": 1, "more": 2}, None, 3])
def test_what_is_of_another_type_is_refused(values):
    with pytest.raises((KeyError, TypeError, AttributeError)):
        codec.decode(Pair, {"left": torch.ones(1)}, values)
