"""What the classification loses when the responses of a layer are changed, image by image.

Of images whose classes the network does not tell apart there is no loss. In its place stands how far the output moves
from the one without the change: the Kullback-Leibler divergence of the distributions over classes.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from rfviz.errors import RfvizError
from rfviz.images.batches import batches
from rfviz.images.data import Indexed, labels_of
from rfviz.images.whitening import NONE, Whitening
from rfviz.nets.graph import ForwardPass
from rfviz.nets.precision import exact

Change = Callable[[Tensor, Sequence[int]], Tensor | tuple[str, Tensor]]
"""Takes the responses of a layer `(n, C, h, w)`, which it may overwrite, and the numbers of the images.

It returns other responses; or the name of a later layer and its responses, to go on from there.
"""

Key = TypeVar("Key", bound=Hashable)


class Outcome(NamedTuple):
    """What a classifier makes of n images.

    Parameters
    ----------
    loss : Tensor of float64, shape (n,)
        Cross-entropy of each image, nats; of images without labels, Kullback-Leibler divergence of the output from that
        without any change, sum over classes of ``p log(p / q)`` where p is without and q with the change.
    correct : Tensor of bool, shape (n,)
        Whether the true class has the highest score; of images without labels, whether the class that has it without
        any change still does.
    """

    loss: Tensor
    correct: Tensor


def outcomes(
    net: nn.Module,
    images: Tensor | Indexed,
    layer: str,
    changes: Callable[[Sequence[int]], Iterable[tuple[Key, Change]]],
    *,
    indices: Sequence[int] | None = None,
    preprocess: Whitening = NONE,
    batch_size: int = 128,
    progress: bool = False,
) -> Iterator[tuple[list[int], Outcome, dict[Key, Outcome]]]:
    """Classify images, batch by batch, with a layer's responses as they are and with changes of them.

    What comes before the layer is computed once per batch.

    Parameters
    ----------
    net, images, layer, indices, preprocess, batch_size, progress
        As for `loss_changes`.
    changes : callable
        Takes the numbers of a batch's images and gives the changes, each with its key.

    Yields
    ------
    numbers : list of int
        Of the images of a batch.
    unchanged : Outcome
    changed : dict from key to Outcome

    Raises
    ------
    RfvizError
        If a label is none of the network's classes, or a loss is not finite; the message names the image.
    """
    stem, rest = ForwardPass(net, [layer]), ForwardPass(net, [layer], to_output=True)
    device = next(net.parameters()).device
    labels = labels_of(images)
    chosen = range(len(images)) if indices is None else indices
    with tqdm(total=len(chosen), desc=f"changes of {layer}", unit="image", disable=not progress) as bar:
        for batch in batches(images, batch_size, indices=chosen):
            numbers = batch.index.tolist()
            with torch.inference_mode(), exact(device):
                whitened = preprocess(batch.images.to(device))
                responses = stem(whitened)  # cloned below: deeper layers may work in place
                logits = rest(whitened, given={layer: responses.clone()})
                judge = partial(_by_output, logits.double().log_softmax(1))
                if labels is not None:
                    judge = partial(_by_labels, labels[batch.index].to(device))
                unchanged = _finite(judge(logits), numbers)
                changed = {}
                for key, change in changes(numbers):
                    after = change(responses.clone(), numbers)
                    given = {layer: after} if isinstance(after, Tensor) else dict([after])
                    changed[key] = _finite(judge(rest(whitened, given=given)), numbers)
            yield numbers, unchanged, changed
            bar.update(len(numbers))


def _by_labels(target: Tensor, logits: Tensor) -> Outcome:
    if len(wrong := target[(target < 0) | (target >= logits.shape[1])]):
        raise RfvizError(
            f"an image has the label {int(wrong[0])}, but the network tells {logits.shape[1]} classes apart: give "
            "images of its classes, or images without labels."
        )
    return Outcome(F.cross_entropy(logits, target, reduction="none").double(), logits.argmax(1) == target)


def _by_output(before: Tensor, logits: Tensor) -> Outcome:
    """Compare with the logarithms of the distributions over classes without any change."""
    after = logits.double().log_softmax(1)
    divergence = F.kl_div(after, before, reduction="none", log_target=True).sum(1)
    return Outcome(divergence.clamp(min=0), after.argmax(1) == before.argmax(1))


def _finite(outcome: Outcome, numbers: Sequence[int]) -> Outcome:
    finite = outcome.loss.isfinite()
    if not finite.all():
        worst = int(finite.logical_not().nonzero()[0])
        raise RfvizError(f"image {numbers[worst]}: the loss is not finite. Check the weights.")
    return Outcome(outcome.loss.cpu(), outcome.correct.cpu())


def loss_changes(
    net: nn.Module,
    images: Tensor | Indexed,
    layer: str,
    changes: Mapping[Key, Change],
    *,
    indices: Sequence[int] | None = None,
    preprocess: Whitening = NONE,
    batch_size: int = 128,
    progress: bool = False,
) -> dict[Key, Tensor]:
    """Measure how changes of a layer's responses change the cross-entropy of each image, or move its output.

    Parameters
    ----------
    net : nn.Module
        A classifier that `torch.fx` can trace, in which every path runs through `layer`.
    images : Tensor (N, 3, H, W) or data set
        RGB in [0, 1], floating point. Labels are read from an attribute `labels`, indices into the network's classes.
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
        Cross-entropy with the change minus without, nats, per image; without labels the divergence, see `Outcome`.

    Raises
    ------
    RfvizError
        If a loss is not finite; the message names the image.
    """
    found: dict[Key, list[Tensor]] = {key: [] for key in changes}
    for _, unchanged, changed in outcomes(
        net, images, layer, lambda numbers: changes.items(), indices=indices, preprocess=preprocess,
        batch_size=batch_size, progress=progress,
    ):  # fmt: skip
        for key, losses in found.items():
            losses.append(changed[key].loss - unchanged.loss)
    return {key: torch.cat(losses) for key, losses in found.items()}


def silencing(channel: int) -> Change:
    """Return the change that sets the responses of a channel to 0 (ablation)."""

    def change(responses: Tensor, _numbers: Sequence[int]) -> Tensor:
        responses[:, channel] = 0
        return responses

    return change


def adding(channels: Sequence[int], amount: float) -> Change:
    """Return the change that adds the same amount to every neuron of some channels."""

    def change(responses: Tensor, _numbers: Sequence[int]) -> Tensor:
        responses[:, list(channels)] += amount
        return responses

    return change


def into_skip(net: nn.Module, layer: str, block: str, inner: Change) -> Change:
    """Return the change that only the skip of a block gets: ``relu(F(x) + x + n)``, where `inner` makes ``x + n`` of x.

    Parameters
    ----------
    net : nn.Module
    layer : str
        Whose responses x are.
    block : str
        The block behind it, which adds them to what its convolutions F make of them.
    inner : Change
        Of the responses of `layer`.
    """
    return _into_one_path(net, layer, block, inner, skip=True)


def into_convolutions(net: nn.Module, layer: str, block: str, inner: Change) -> Change:
    """Return the change that only the convolutions of a block get: ``relu(F(x + n) + x)``; see `into_skip`."""
    return _into_one_path(net, layer, block, inner, skip=False)


def _into_one_path(net: nn.Module, layer: str, block: str, inner: Change, *, skip: bool) -> Change:
    through = ForwardPass(net, [block], before_relu=True)

    def change(responses: Tensor, numbers: Sequence[int]) -> tuple[str, Tensor]:
        changed = inner(responses.clone(), numbers)
        assert isinstance(changed, Tensor)
        added = changed - responses
        convolved = responses if skip else changed
        total = through(convolved, given={layer: convolved.clone()})  # F(convolved) + convolved
        return block, (total + added if skip else total - added).clamp(min=0)

    return change


def cutting(net: nn.Module, layers: Sequence[str], channels: Sequence[int]) -> Change:
    """Return the change that lets no block write to some channels: they are what the first of the layers gave them.

    Parameters
    ----------
    net : nn.Module
    layers : sequence of str
        Blocks with identity skips, one behind the other; before them the layer that the first is given.
    channels : sequence of int
    """
    passes = [ForwardPass(net, [block], before_relu=True) for block in layers[1:]]

    def change(responses: Tensor, _numbers: Sequence[int]) -> tuple[str, Tensor]:
        value = responses
        for before, through in zip(layers, passes, strict=False):
            value = through(value, given={before: value.clone()}).clamp(min=0)
            value[:, list(channels)] = responses[:, list(channels)]
        return layers[-1], value

    return change


def deviation(
    net: nn.Module,
    images: Tensor | Indexed,
    layer: str,
    channels: Sequence[int],
    *,
    indices: Sequence[int],
    preprocess: Whitening = NONE,
    batch_size: int = 128,
) -> float:
    """Return the standard deviation of the responses of some channels of a layer, over all of their neurons at once."""
    forward, device = ForwardPass(net, [layer]), next(net.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.inference_mode(), exact(device):
        for batch in batches(images, batch_size, indices=indices):
            values = forward(preprocess(batch.images.to(device)))[:, list(channels)].double()
            sums += torch.stack([values.sum(), values.square().sum(), torch.tensor(float(values.numel()))]).cpu()
    mean, square = (sums[:2] / sums[2]).tolist()
    return max(square - mean**2, 0.0) ** 0.5


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
