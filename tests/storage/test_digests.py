"""Digests see everything that makes values and tensors differ, and nothing else."""

import copy
import hashlib
import re
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfviz.storage.digests import digest, tensor_digest


def test_digest_of_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    values = [None, 0, "0", 0.5, [0], [0, 0], {"a": 0}, {"a": [0]}, {"b": 0}, "", [], {}]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(0.1 + 0.2) != digest(0.3)


def test_tensor_digest_sees_names_types_shapes_and_values():
    x = torch.arange(1, 7, dtype=torch.int32)
    different = [
        {},
        {"a": x},
        {"b": x},
        {"a": x.view(torch.float32)},  # the same bytes
        {"a": x.view(2, 3)},
        {"a": x.view(3, 2)},
        {"a": x.view(6, 1)},
        {"a": x.flip(0)},
        {"a": x.to(torch.int64)},
        {"a": x, "b": x},
        {"a": x, "b": x.flip(0)},
        {"a": x.flip(0), "b": x},
        {"a": torch.zeros(0)},
        {"a": torch.zeros(0, 3)},
        {"a": torch.zeros(1)},
        {"a": -torch.zeros(1)},
        {"a": torch.zeros(())},
        {"a": torch.zeros(1, dtype=torch.bool)},
        {"a": torch.ones(1, dtype=torch.bool)},
        {"a": torch.zeros(1, dtype=torch.uint8)},
        {"a": torch.zeros(1, dtype=torch.float16)},
        {"a": torch.zeros(1, dtype=torch.bfloat16)},
        {"a": torch.full((1,), 1e-30, dtype=torch.bfloat16)},
    ]
    assert len({tensor_digest(tensors) for tensors in different}) == len(different)


def test_tensor_digest_sees_every_element():
    for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.bool):
        x = torch.zeros(2, 3, 4, dtype=dtype)
        digests = {tensor_digest({"x": x})}
        for i in range(x.numel()):
            changed = x.clone()
            changed.view(-1)[i] = 1
            digests.add(tensor_digest({"x": changed}))
        assert len(digests) == x.numel() + 1


def test_tensor_digest_does_not_see_how_a_tensor_lies_in_memory():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    lying = [
        x.clone(memory_format=torch.channels_last), x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        x.clone().requires_grad_(), torch.stack([x, x])[1],
    ]  # fmt: skip
    assert {tensor_digest({"x": each}) for each in lying} == {tensor_digest({"x": x})}
    assert tensor_digest({"a": x, "b": x[0]}) == tensor_digest({"b": x[0], "a": x})


def test_one_element_of_a_column_can_be_digested():
    """Such a tensor is contiguous although its stride is not 1."""
    column = torch.arange(6.0).view(1, 6)[:, 2]
    column = column.as_strided((1,), (6,), column.storage_offset())
    assert column.stride() == (6,) and column.is_contiguous()
    assert tensor_digest({"x": column}) == tensor_digest({"x": torch.tensor([2.0])}) != tensor_digest({"x": column + 1})


def test_part_of_a_tensor_is_digested_as_that_part():
    x = torch.arange(24.0).view(4, 6)
    for part in (x[1:3], x[2], x[:, 1:4], x[::2, ::3], x[3, 5], x.T[1:]):
        assert tensor_digest({"x": part}) == tensor_digest({"x": torch.tensor(part.tolist())})


def test_digests_are_16_hex_digits():
    for found in (digest({"a": [1]}), digest(None), tensor_digest({}), tensor_digest({"x": torch.zeros(3)})):
        assert re.fullmatch("[0-9a-f]{16}", found)


def test_digests_stay_the_same():
    """They name files: another digest of the same would have every stored result computed anew."""
    of_text = hashlib.sha256(b'{"a": "\\u00fc", "b": [1, 0.1, null]}').hexdigest()
    assert digest({"b": (1, 0.1, None), "a": "ü"}) == of_text[:16]
    of_bytes = hashlib.sha256(b"a torch.uint8 (1,)\x07x torch.float32 (2, 3)" + struct.pack("<6f", *range(6)))
    tensors = {"x": torch.arange(6.0).view(2, 3), "a": torch.tensor([7], dtype=torch.uint8)}
    assert tensor_digest(tensors) == of_bytes.hexdigest()[:16]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


def same(one, other):
    """Equal, and of equal types all through: 1 is not 1.0, nor True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return repr(one) == repr(other)


@settings(max_examples=80, deadline=None, database=None)
@given(one=json_values, other=json_values, copied=st.booleans())
def test_digests_are_equal_where_values_are(one, other, copied):
    other = copy.deepcopy(one) if copied else other
    assert (digest(one) == digest(other)) == same(one, other)


@settings(max_examples=60, deadline=None, database=None)
@given(keys=st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=5), order=st.randoms())
def test_the_order_of_names_does_not_count(keys, order):
    shuffled = order.sample(keys, len(keys))
    assert digest({key: len(key) for key in keys}) == digest({key: len(key) for key in shuffled})
    tensors = {key: torch.tensor([i]) for i, key in enumerate(keys)}
    assert tensor_digest(tensors) == tensor_digest({key: tensors[key] for key in shuffled})


def test_what_is_no_json_value_is_refused():
    for value in (object(), torch.zeros(1), {1, 2}):
        with pytest.raises(TypeError):
            digest(value)
