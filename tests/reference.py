"""Slow, obvious ways to the answers, and ways to give the same things, that several test modules share."""

from typing import TypeVar

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from torch import nn

from rfviz.nets import graph

Net = TypeVar("Net", bound=nn.Module)

TINY = {
    "epochs": 1, "repeats": 8, "noise_seeds": 2, "maximization_steps": 2, "top_k": 4, "disturbed_images": 8,
    "picture_channels": 3,
}  # fmt: skip
"""Of a run that takes seconds."""

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "columns first": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "images last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "some of the columns": lambda x: torch.stack([x, x + 1], 4).flatten(3)[..., ::2],
    "some of the channels, channels last": lambda x: torch.cat([x, x + 1], 1).contiguous(
        memory_format=torch.channels_last
    )[:, : x.shape[1]],
}
"""Tensors (N, C, h, w) that are equal and lie differently in memory."""


def brute_top(responses, channel, k, per_image=1, competes=lambda i, y, x: True):
    """The k strongest neurons as (value, image, y, x); ties to the lower image, then raster order."""
    candidates = []
    for i, response in enumerate(responses):
        rows = enumerate(response[channel].tolist())
        neurons = [(-value, i, y, x) for y, row in rows for x, value in enumerate(row) if competes(i, y, x)]
        candidates += sorted(neurons)[:per_image]
    return [(-value, i, y, x) for value, i, y, x in sorted(candidates)[:k]]


def brute_mean(images, neurons, field):
    """Mean over the patches of neurons (image, y, x), every pixel over those patches that have it; and the counts."""
    size, stride, start = field
    total, count = np.zeros((3, size, size)), np.zeros((size, size), dtype=int)
    for i, y, x in neurons:
        image = images[i].numpy()
        top, left = stride * y + start, stride * x + start
        y0, y1 = max(top, 0), min(top + size, image.shape[1])
        x0, x1 = max(left, 0), min(left + size, image.shape[2])
        if y0 < y1 and x0 < x1:
            total[:, y0 - top : y1 - top, x0 - left : x1 - left] += image[:, y0:y1, x0:x1]
            count[y0 - top : y1 - top, x0 - left : x1 - left] += 1
    return total / np.maximum(count, 1), count


def assert_mean_is(stimulus, count, images, neurons_of, field):
    assert stimulus.dtype == torch.float32 and count.dtype == torch.int64
    for channel in range(len(stimulus)):
        expected, expected_count = brute_mean(images, neurons_of(channel), field)
        np.testing.assert_array_equal(count[channel].numpy(), expected_count)
        np.testing.assert_allclose(stimulus[channel].numpy(), expected, rtol=0, atol=1e-5)


def bin_of(value):
    """0 for no response, 1 below 2^-10, then one bin per octave, 22 from 2^10 on."""
    if value <= 0:
        return 0
    return 1 + sum(value >= 2.0**exponent for exponent in range(-10, 11))


@st.composite
def splits(draw, most):
    """A number of images, and cuts into batches of at least one image."""
    n = draw(st.integers(1, most))
    cuts = sorted(draw(st.sets(st.integers(1, n - 1)))) if n > 1 else []
    return n, list(zip([0, *cuts], [*cuts, n], strict=True))


def through_a_file(state):
    """A state as it comes back from a file."""
    return safetensors.torch.load(safetensors.torch.save({name: each.contiguous() for name, each in state.items()}))


def bits(*tensors):
    """What tells apart everything, -0.0 from 0.0 too."""
    return [(each.dtype, each.shape, each.contiguous().numpy().tobytes()) for each in tensors]


def settled(net: Net, seed: int = 0) -> Net:
    """Give every batch norm statistics and an affine part that are not the trivial ones, and evaluate."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.1 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(shape, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(shape, generator=generator))
    return net.eval()


def called_modules(net: nn.Module, run) -> list[str]:
    """Return the names of the modules without children that `run` calls, in order."""
    called: list[str] = []
    graph.trace(net)  # the first time, it runs the network
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, module in net.named_modules()
        if not list(module.children())
    ]
    run()
    for hook in hooks:
        hook.remove()
    return called
