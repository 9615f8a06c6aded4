"""The libraries and the loops that the kernels are measured against, doing the same work as far as they can."""

import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rfviz.nets.receptive_field import ReceptiveField


def without_inplace(net: nn.Module) -> nn.Module:
    """The peers keep references to values, which torchvision's ReLUs would overwrite."""
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net


class Numbered(torch.utils.data.Dataset):
    """Images with a label each, as zennit-crp wants them."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], 0


def zennit_crp(net: nn.Module, images: Tensor, layers: Sequence[str], k: int, batch_size: int) -> dict[str, Tensor]:
    """Top-k images of every channel `(C, k)`. It also runs a backward pass, and statistics for each class."""
    vars(np).setdefault("int", int)  # zennit-crp 0.6.0 was written for older numpy
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.helper import load_maximization
    from crp.visualization import FeatureVisualization

    with tempfile.TemporaryDirectory() as folder:
        found = FeatureVisualization(
            CondAttribution(net), Numbered(images), {layer: ChannelConcept() for layer in layers},
            max_target="max", abs_norm=False, path=folder, device="cpu",
        )  # fmt: skip
        found.ActMax.SAMPLE_SIZE = k
        found.run(None, 0, len(images), batch_size=batch_size)
        images_of = {layer: load_maximization(found.ActMax.PATH, layer)[0] for layer in layers}
        return {layer: torch.from_numpy(np.array(images)).T for layer, images in images_of.items()}


def captum_topk(net: nn.Module, images: Tensor, layers: Sequence[str], k: int, batch_size: int) -> dict[str, Tensor]:
    """Top-k images of every channel `(C, k)`, one pass per layer, every maximum kept."""
    from captum.attr import LayerActivation

    found = {}
    for layer in layers:
        activation = LayerActivation(net.forward, net.get_submodule(layer))
        with torch.no_grad():
            maxima = torch.cat([activation.attribute(batch).amax((2, 3)) for batch in images.split(batch_size)])
        found[layer] = maxima.topk(k, 0).indices.T
    return found


def mean_by_loop(images: Tensor, responses: Tensor, field: ReceptiveField) -> Tensor:
    """Mean preferred stimulus of every channel, one patch after the other."""
    channels, size = responses.shape[1], field.size
    total = torch.zeros(channels, 3, size, size, dtype=torch.float64)
    count = torch.zeros(channels, 1, size, size, dtype=torch.int64)
    for i, channel, y, x in (responses > 0).nonzero().tolist():
        patch, inside = field.crop(images[i], y, x)
        total[channel] += patch
        count[channel] += inside
    return (total / count.clamp(min=1)).float()


def lucent(net: nn.Module, layer: str, channels: Sequence[int], steps: int) -> None:
    """Maximise the centre neuron of some channels on an image of 224 px."""
    from lucent.optvis import objectives, param, render

    name = layer.replace(".", "_")
    objective = objectives.neuron(name, channels[0], batch=0)
    for i, channel in enumerate(channels[1:], 1):
        objective = objective + objectives.neuron(name, channel, batch=i)
    render.render_vis(
        net, objective, lambda: param.image(224, batch=len(channels), fft=False, decorrelate=False),
        transforms=[], thresholds=(steps,), show_image=False, progress=False, preprocess=False,
    )  # fmt: skip
