"""Hashes that stand for values and tensors."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def digest(value: Any) -> str:
    """Return 16 hex digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digests(folder: Path, files: Iterable[Path] | None = None) -> dict[str, str]:
    """Return the SHA-256 of files by their names below a folder; by default of all that are there."""
    chosen = folder.rglob("*") if files is None else files
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in chosen
        if file.is_file()
    }


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
