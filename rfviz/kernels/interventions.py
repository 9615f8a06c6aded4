"""What the classification loses when the responses of a layer are changed, image by image."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from rfviz.errors import RfvizError
from rfviz.images.batches import batches
from rfviz.images.data import Labelled
from rfviz.images.whitening import NONE, Whitening
from rfviz.nets.graph import ForwardPass

Change = Callable[[Tensor, Sequence[int]], Tensor]
"""Takes the responses of a layer `(n, C, h, w)` and the numbers of the images, and returns other responses."""

Key = TypeVar("Key", bound=Hashable)


def loss_changes(
    net: nn.Module,
    images: Labelled,
    layer: str,
    changes: Mapping[Key, Change],
    *,
    indices: Sequence[int] | None = None,
    preprocess: Whitening = NONE,
    batch_size: int = 128,
    progress: bool = False,
) -> dict[Key, Tensor]:
    """Measure how changes of a layer's responses change the cross-entropy of each image.

    Parameters
    ----------
    net : nn.Module
        A classifier that `torch.fx` can trace, in which every path runs through `layer`.
    images : Labelled
        RGB in [0, 1], floating point.
    layer : str
        See `rfviz.nets.graph` for the names.
    changes : mapping to Change
        What is done to the responses; each is a pass of its own from the layer on.
    indices : sequence of int, optional
        Only these images.
    preprocess : Whitening
        Applied to the images just before the network.
    batch_size : int
        Changes the speed, never the result beyond rounding.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict to Tensor of float64, shape (N,)
        Cross-entropy with the change minus without, nats, per image.

    Raises
    ------
    RfvizError
        If a loss is not finite.
    """
    chosen = range(len(images)) if indices is None else indices
    place = {number: i for i, number in enumerate(chosen)}
    before, after = ForwardPass(net, [layer]), ForwardPass(net, [layer], to_output=True)
    device = next(net.parameters()).device
    labels = torch.tensor([int(label) for label in images.labels])
    found = {key: torch.zeros(len(chosen), dtype=torch.float64) for key in changes}
    bar = tqdm(total=len(chosen), desc=f"changes of {layer}", unit="image", disable=not progress)
    with torch.inference_mode(), bar:
        for batch in batches(images, batch_size, indices=chosen):
            numbers = batch.index.tolist()
            whitened, target = preprocess(batch.images.to(device)), labels[batch.index].to(device)
            responses = before(whitened)
            rows = [place[number] for number in numbers]
            logits = after(whitened, given={layer: responses.clone()})  # deeper layers may work in place
            unchanged = cross_entropies(logits, target, numbers)
            for key, change in changes.items():
                logits = after(whitened, given={layer: change(responses.clone(), numbers)})
                found[key][rows] = cross_entropies(logits, target, numbers) - unchanged
            bar.update(len(numbers))
    return found


def cross_entropies(logits: Tensor, target: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return the cross-entropy of each image, float64 `(n,)` on the CPU, nats.

    Raises
    ------
    RfvizError
        If one is not finite; the message names the image.
    """
    losses = F.cross_entropy(logits, target, reduction="none").double().cpu()
    if not losses.isfinite().all():
        worst = int(losses.isfinite().logical_not().nonzero()[0])
        raise RfvizError(f"image {numbers[worst]}: the loss is not finite. Check the weights.")
    return losses


def silencing(channel: int) -> Change:
    """Return the change that sets the responses of a channel to 0 (ablation)."""

    def change(responses: Tensor, _numbers: Sequence[int]) -> Tensor:
        responses[:, channel] = 0
        return responses

    return change


def spread(count: int, at_most: int) -> range:
    """Return the numbers of at most so many of `count` images, evenly spread: all classes, where they lie in order.

    Raises
    ------
    RfvizError
        If either number is less than 1.
    """
    if count < 1 or at_most < 1:
        raise RfvizError(f"at most {at_most} of {count} images were asked for: both numbers must be 1 or more.")
    return range(0, count, -(-count // at_most))
