"""Neurons whose response is nearest to given ones, and where over an image a channel fires."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from rfviz.images.batches import Images, batches
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.responses.maps import Maps
from rfviz.kernels.responses.top_stimuli import EMPTY, TopStimuli
from rfviz.nets import receptive_field
from rfviz.nets.graph import ForwardPass
from rfviz.nets.precision import exact


def nearest(
    net: nn.Module,
    images: Images,
    layer: str,
    levels: Tensor,
    k: int,
    *,
    preprocess: Whitening = NONE,
    borders: bool = False,
    batch_size: int = 64,
    kept: dict[int, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the neurons of each channel whose response is nearest to given ones.

    Parameters
    ----------
    net : nn.Module
    images : Tensor (N, 3, H, W), data set or iterable of batches
        RGB in [0, 1].
    layer : str
    levels : Tensor, shape (C, L)
        Responses to look for. Only neurons with a response > 0 are found, one per image and level at most.
    k : int
        Neurons per channel and level.
    preprocess : Whitening
        Applied to the images just before the network.
    borders : bool
        As in `rfviz.kernels.responses.collect`: whether neurons whose field leaves the image are found, too.
    batch_size : int
        Changes the speed only.
    kept : dict, optional
        Where the responses to every image are put, `(C, h, w)` on the CPU, for those who need them as well.

    Returns
    -------
    images : Tensor of int64, shape (C, L, k)
        Nearest first, ties to the lower image index, then to raster order; -1 where there are fewer.
    positions : Tensor of int64, shape (C, L, k, 2)
        Neuron (y, x).
    """
    device = next(net.parameters()).device
    forward, field = ForwardPass(net, [layer]), receptive_field.known(net, [layer])[layer].field
    tops = [TopStimuli(k) for _ in range(levels.shape[1])]
    wanted = levels.to(device)[..., None, None]
    with torch.inference_mode(), exact(device):
        for batch in batches(images, batch_size):
            sides = batch.images.shape[2:]

            def read(_: str, response: Tensor, index: Tensor = batch.index, sides: torch.Size = sides) -> None:
                rows, columns = (
                    slice(0, neurons) if borders else field.whole(neurons, pixels)
                    for neurons, pixels in zip(response.shape[2:], sides, strict=True)
                )
                if kept is not None:
                    kept.update(zip(index.tolist(), response.float().cpu(), strict=True))
                for number, top in enumerate(tops):
                    away = (response - wanted[:, number]).abs()
                    merit = torch.where(response > 0, -away, -torch.inf).to(response.dtype)
                    top.update(index, Maps(merit, rows, columns))

            forward(preprocess(batch.images.to(device)), read)
    found = [top.result() for top in tops]
    there = torch.stack([merit for merit, _, _ in found], 1).isfinite()
    numbers = torch.stack([number for _, number, _ in found], 1)
    places = torch.stack([position for _, _, position in found], 1)
    return torch.where(there, numbers, EMPTY), torch.where(there[..., None], places, EMPTY)


def maps(
    net: nn.Module,
    images: Images,
    layer: str,
    wanted: Mapping[int, Collection[int]],
    *,
    preprocess: Whitening = NONE,
    batch_size: int = 64,
) -> dict[tuple[int, int], Tensor]:
    """Return how some channels respond all over some images.

    Parameters
    ----------
    net, images, layer, preprocess, batch_size
        As in `nearest`; images must be such that they can be asked for by number.
    wanted : dict from int to collection of int
        By the number of an image, the channels.

    Returns
    -------
    dict from (image, channel) to Tensor, shape (h, w)
        Responses after the ReLU, on the CPU.
    """
    device = next(net.parameters()).device
    forward = ForwardPass(net, [layer])
    found: dict[tuple[int, int], Tensor] = {}
    with torch.inference_mode(), exact(device):
        for batch in batches(images, batch_size, indices=sorted(wanted)) if wanted else ():

            def read(_: str, response: Tensor, index: Tensor = batch.index) -> None:
                for number, maps_of_image in zip(index.tolist(), response, strict=True):
                    for channel in wanted[number]:
                        found[number, channel] = maps_of_image[channel].float().cpu()

            forward(preprocess(batch.images.to(device)), read)
    return found
