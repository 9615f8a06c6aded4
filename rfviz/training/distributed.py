"""Several processes, started by `torchrun`, that share one training.

Without `torchrun` there is one process and nothing here does anything.
"""

import contextlib
import gc
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=7)
"""How long a process waits for the others: one of them may be training a network."""


def world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes: (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def started() -> int:
    """Return how many processes `torchrun` started, whether or not they have joined: 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, if it did, and leave them again."""
    if started() == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    except BaseException as error:
        # A traceback keeps the variables of its functions, among them a network that belongs to the group; freed after
        # the group is gone, it waits for the other processes forever.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        raise
    finally:
        dist.destroy_process_group()


def processes_here() -> int:
    """Return how many processes of the group run on this machine, according to `torchrun`."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world()[1] > 1 else 1


@contextlib.contextmanager
def first_of_machine() -> Iterator[None]:
    """Let the first process of each machine go through the block, and then the others."""
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()


def gather(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the named tensors of every process, in the order of their ranks, on the CPU.

    Shapes may differ from process to process. The tensors travel as safetensors, never pickled.
    """
    processes = world()[1]
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if processes == 1:
        return [held]
    mine = torch.frombuffer(bytearray(safetensors.torch.save(held)), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(processes)]
    dist.all_gather(lengths, torch.tensor([len(mine)]))
    longest = int(max(lengths))
    padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(processes)]
    dist.all_gather(padded, torch.nn.functional.pad(mine, (0, longest - len(mine))))
    return [
        safetensors.torch.load(part[: int(length)].numpy().tobytes())
        for part, length in zip(padded, lengths, strict=True)
    ]


def first_says(flag: bool) -> bool:
    """Return the first process's flag on every process."""
    return any_says([flag and world()[0] == 0])[0]


def any_says(flags: Sequence[bool]) -> list[bool]:
    """Return, on every process, which flags are true on at least one."""
    if world()[1] == 1:
        return list(flags)
    said = torch.tensor([int(flag) for flag in flags])
    dist.all_reduce(said, dist.ReduceOp.MAX)
    return [bool(flag) for flag in said]


def barrier() -> None:
    """Wait until every process has reached this point."""
    if world()[1] > 1:
        dist.barrier()
