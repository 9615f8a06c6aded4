"""Dataclasses of tensors and JSON values, taken apart into named tensors and one JSON value, and put together again.

The type hints say how: of a field, of the members of a tuple, a list or a dict. What comes out equals what went in,
types included; tensors come out on the CPU.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor


def encode(value: Any) -> tuple[dict[str, Tensor], Any]:
    """Take a value apart.

    Parameters
    ----------
    value : dataclass, NamedTuple, mapping with keys of str, sequence, Tensor, bytes or JSON value
        In any nesting.

    Returns
    -------
    tensors : dict from str to Tensor
        By their path, such as ``"maxpool/mean"``.
    values : JSON value
        Everything else; None where a tensor belongs.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _take(value, "", tensors)


def _take(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, bytes):
        value = torch.frombuffer(bytearray(value), dtype=torch.uint8)
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu()
        return None
    if dataclasses.is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: _take(each, _below(path, key), tensors) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_take(each, _below(path, i), tensors) for i, each in enumerate(value)]
    return value


def _below(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)


def decode(hint: Any, tensors: Mapping[str, Tensor], values: Any, path: str = "") -> Any:
    """Put a value together again.

    Parameters
    ----------
    hint : type
        Of the value.
    tensors, values
        What `encode` returned, or what came back of it from a file.
    path : str
        Where the value lies among the tensors.

    Raises
    ------
    KeyError, TypeError
        If they are not what `encode` makes of a value of that type.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        there = path in tensors or values is not None
        (inside,) = (each for each in inner if each is not type(None))
        return decode(inside, tensors, values, path) if there else None
    if hint is Tensor:
        return tensors[path]
    if hint is bytes:
        return tensors[path].numpy().tobytes()
    if origin is tuple:
        of_each = inner[:1] * len(values) if inner[-1:] == (...,) else inner
        return tuple(
            decode(each, tensors, value, _below(path, i))
            for i, (each, value) in enumerate(zip(of_each, values, strict=True))
        )
    if origin in (list, Sequence):
        return [decode(inner[0], tensors, value, _below(path, i)) for i, value in enumerate(values)]
    if origin in (dict, Mapping):
        return {key: decode(inner[1], tensors, value, _below(path, key)) for key, value in values.items()}
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        hints = get_type_hints(hint)
        return hint(**{key: decode(hints[key], tensors, value, _below(path, key)) for key, value in values.items()})
    return values
