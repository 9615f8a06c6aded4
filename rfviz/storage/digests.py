"""Hashes that stand for values and tensors."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(value: Any) -> str:
    """Return 16 hex digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits that stand for named tensors: names, types, shapes and every byte."""
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # as_strided: a tensor of one element is contiguous whatever its stride, but view wants a stride of 1
        flat = tensor.as_strided((tensor.numel(),), (1,))
        hashed.update(flat.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return hashed.hexdigest()[:16]
