"""One pass over the images: the strongest stimuli, the mean preferred stimulus and the activity of every channel.

The pass feeds small accumulators, a few per layer. Each keeps a state whose size does not depend on the number of
images, takes the responses of a batch with `update`, and gives its part of the answer with `result`:

==============================  ===========================================================================
`top_stimuli.TopStimuli`        which neurons respond most strongly, and to which image
`mean_stimulus.MeanStimulus`    the mean receptive-field patch over neurons (eqs. 3 and 4 of the paper)
`activity.Activity`             maximum, mean, share of neurons that fire, histogram
==============================  ===========================================================================

Batches may come in any order and size: what is a list or a count comes out the same to the bit, what is a sum the same
to rounding. A pass that was killed goes on from its last checkpoint and ends with the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError, check_channel
from rfviz.images import whitening
from rfviz.images.batches import Images, image_of, is_indexed
from rfviz.images.data import Indexed
from rfviz.images.whitening import Whitening
from rfviz.kernels.responses.checkpoint import Checkpoint
from rfviz.kernels.responses.passes import Options, Pass, made_of
from rfviz.nets import zoo
from rfviz.nets.receptive_field import ReceptiveField

FLAT = 1e-6
"""Contrast below which a picture counts as flat, RGB in [0, 1]: rounding, far less than a step of an 8-bit screen."""


@dataclass(frozen=True)
class LayerResponses:
    """What one pass over N images says of the C channels of a layer, whose receptive field is R px wide.

    Parameters
    ----------
    receptive_field : ReceptiveField
    image_count : int
        N.
    neuron_count : int
        Number of neurons of one channel over all images.
    top_values : Tensor, shape (C, k)
        The strongest responses of the neurons that compete (see `collect`), descending; ties go to the lower image
        index, then to raster order. Where there are fewer than k candidates, the rest is -inf.
    top_images : Tensor of int64, shape (C, k)
        Index of the image of each; -1 where there is none.
    top_positions : Tensor of int64, shape (C, k, 2)
        Neuron (y, x) of each; -1 where there is none.
    positive_count : Tensor of int64, shape (C,)
        Number of neurons with response > 0.
    maximum, mean : Tensor of float64, shape (C,)
        Over all neurons.
    histogram : Tensor of int64, shape (C, 23)
        Neurons per bin: bin 0 counts responses <= 0, bin 1 those below 2^-10, the last those of 2^10 and more, the
        others one octave each, between `rfviz.kernels.responses.activity.HISTOGRAM_EDGES`.
    mean_stimulus : Tensor, shape (C, 3, R, R), or None
        Mean patch over all neurons with response > 0 (eqs. 3 and 4), RGB in [0, 1]; pixels outside the image do not
        count; 0 where nothing was counted.
    mean_count : Tensor of int64, shape (C, R, R), or None
        Number of patches that each pixel of the mean comes from.
    strongest_stimulus : Tensor, shape (C, 3, R, R), or None
        The same mean over the n of the neurons that compete with the strongest positive response only.
    strongest_count : Tensor of int64, shape (C, R, R), or None
    mean_patch, competing_patch : Tensor, shape (3, R, R), or None
        Mean patch over all neurons of a channel whatever their response, and over those that compete: what the means
        would be if responses had nothing to do with the images.
    """

    receptive_field: ReceptiveField
    image_count: int
    neuron_count: int
    top_values: Tensor
    top_images: Tensor
    top_positions: Tensor
    positive_count: Tensor
    maximum: Tensor
    mean: Tensor
    histogram: Tensor
    mean_stimulus: Tensor | None = None
    mean_count: Tensor | None = None
    strongest_stimulus: Tensor | None = None
    strongest_count: Tensor | None = None
    mean_patch: Tensor | None = None
    competing_patch: Tensor | None = None

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return len(self.maximum)

    def check_images(self, images: Any) -> None:
        """Raise RfvizError if these are not as many images as the responses are of."""
        if len(images) != self.image_count:
            raise RfvizError(
                f"the responses are of {self.image_count} images, but {len(images)} were given: give those that they "
                "were collected from."
            )

    @property
    def firing_rate(self) -> Tensor:
        """Share of neurons with response > 0, float64 `(C,)` in [0, 1]."""
        return self.positive_count.double() / self.neuron_count

    @property
    def competes(self) -> Tensor:
        """Whether a channel has a preferred stimulus: a response > 0 among the neurons that compete, bool `(C,)`."""
        return self.top_values[:, 0] > 0

    @property
    def mean_deviation(self) -> Tensor:
        """How `mean_stimulus` differs from `mean_patch`, `(C, 3, R, R)`.

        0 where nothing was counted, all over where the largest deviation is rounding, and of a channel that fires at
        every neuron: there the two are the same.
        """
        apart = _deviation(self.mean_stimulus, self.mean_count, self.mean_patch)
        return torch.where((self.positive_count < self.neuron_count)[:, None, None, None], apart, 0)

    @property
    def strongest_deviation(self) -> Tensor:
        """How `strongest_stimulus` differs from `competing_patch`, `(C, 3, R, R)`; 0 as in `mean_deviation`."""
        return _deviation(self.strongest_stimulus, self.strongest_count, self.competing_patch)


def _deviation(mean: Tensor | None, count: Tensor | None, patch: Tensor | None) -> Tensor:
    if mean is None or count is None or patch is None:
        raise RfvizError("these responses hold no such mean: collect them with mean_stimulus or strongest.")
    apart = torch.where(count[:, None] > 0, mean - patch, 0)
    return torch.where(apart.abs().amax((1, 2, 3), keepdim=True) > FLAT, apart, 0)


def collect(
    net: nn.Module,
    images: Images,
    layers: str | Sequence[str],
    top_k: int = 16,
    *,
    per_image: int | None = 1,
    mean_stimulus: bool = True,
    strongest: int | None = None,
    strongest_per_image: int | None = None,
    neuron: tuple[int, int] | None = None,
    borders: bool = False,
    preprocess: Any = None,
    batch_size: int = 64,
    workers: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: float = 60.0,
    discard_unusable: bool = False,
    progress: bool = False,
) -> dict[str, LayerResponses]:
    """Run the images through a network once and gather what each channel of some layers responds to.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode, on its own device, and images come in the
        memory format of its weights: after ``net.to(memory_format=torch.channels_last)`` the pass is usually faster.
    images : Tensor (N, 3, H, W), data set or iterable of batches
        RGB in [0, 1]; see `rfviz.images.batches`.
    layers : str or sequence of str
        Names as in `rfviz.nets.graph`; `rfviz.nets.layer_table.layers` lists them.
    top_k : int
        Number of preferred stimuli per channel.
    per_image : 1 or None
        1 takes the strongest neuron of each image, None every neuron.
    mean_stimulus : bool
        Also average the patches of all neurons with response > 0 (eqs. 3 and 4), of layers with a receptive field. For
        a layer of C channels whose field is R px wide, the answer takes 20 C R^2 bytes: 14 MB for layer1.2 of ResNet34,
        8 GB for layer4.2.
    strongest : int, optional
        Also average the patches of this many strongest neurons. Takes a second look at the images, without the
        network, so `images` must be a tensor or a data set.
    strongest_per_image : int, optional
        How many of these may be of one image, so that a few images do not make the mean; any number by default.
    neuron : (int, int), optional
        Average over the positive images of this one neuron (y, x), as eq. 3 has it to the letter, instead of over the
        neurons at all positions.
    borders : bool
        Let neurons at the border compete for the preferred stimuli and for the strongest, too. By default those compete
        whose receptive field lies inside the image; where it is larger than the image, those that see all of it. A
        neuron that looks past the border sees the edge of the padding there, which is no part of the photograph.
    preprocess : Whitening, transform, str or pair, optional
        What normalises the images, just before the network; see `rfviz.images.whitening.of`. Without it they stay as
        they are, with a warning where the weights are probably such that expect it.
    batch_size, workers : int
        Change the speed, never the result beyond rounding.
    checkpoint : Path, optional
        Where the state is written now and then, and at the end; where the file exists, the pass goes on from it. Killed
        at any moment and called again, it ends with the same result, to the bit. The file is the caller's to remove.
    checkpoint_every : float
        Seconds between two writings.
    discard_unusable : bool
        Where the checkpoint is damaged or another pass's, warn, remove it and begin anew, instead of refusing it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict from layer name to LayerResponses

    Raises
    ------
    RfvizError
        If a layer is unknown, an option is impossible, the images are not RGB, a response is not finite (the message
        names the image), or a checkpoint cannot be read, is damaged or is another pass's.
    """
    layers = [layers] if isinstance(layers, str) else layers
    if not layers:
        raise RfvizError("no layers were asked for: name at least one.")
    if any(value is not None and value < 1 for value in (top_k, batch_size, strongest, strongest_per_image)):
        raise RfvizError(
            f"top_k ({top_k}), batch_size ({batch_size}), strongest ({strongest}) and strongest_per_image "
            f"({strongest_per_image}) must be at least 1."
        )
    if per_image not in (1, None):
        raise RfvizError(f"per_image is {per_image!r}: it must be 1 (one neuron per image) or None (every neuron).")
    if strongest is not None and not is_indexed(images):
        raise RfvizError("strongest needs a second look at the images: give a tensor or a data set, not an iterator.")
    once = tuple(dict.fromkeys(layers))  # a layer that is named twice must not be counted twice
    options = Options(
        once, top_k, per_image, mean_stimulus, strongest, strongest_per_image, neuron, borders, batch_size
    )
    file, white = None, normalizing(net, preprocess)
    if checkpoint is not None:
        file = Checkpoint(Path(checkpoint), made_of(net, images, white, options), checkpoint_every, discard_unusable)
    found = Pass(net, images, white, options).run(file, workers, progress)
    return {layer: LayerResponses(**of_layer) for layer, of_layer in found.items()}


def normalizing(net: nn.Module, preprocess: Any) -> Whitening:
    """Return the whitening that `preprocess` says; where it says nothing, warn if a network's weights expect one."""
    if preprocess is None:
        whitening.warn_without(zoo.expected_preprocess(net), type(net).__name__)
    return whitening.of(preprocess)


def preferred_stimuli(images: Tensor | Indexed, responses: LayerResponses, channel: int) -> tuple[Tensor, Tensor]:
    """Cut the preferred stimuli of one channel out of the images (Figs. 2 and 4 of the paper).

    Parameters
    ----------
    images : Tensor (N, 3, H, W) or data set
        The images that `collect` saw.
    responses : LayerResponses
    channel : int

    Returns
    -------
    patches : Tensor, shape (n, 3, R, R)
        RGB in [0, 1], strongest first; n is k, or less where fewer neurons have a response above 0: a silent channel
        has no preferred stimuli. Of a layer that sees the whole image, the images.
    inside : Tensor of bool, shape (n, R, R)
        Which pixels exist.

    Raises
    ------
    RfvizError
        If there is no such channel, or another number of images.
    """
    check_channel(channel, responses.channels)
    responses.check_images(images)
    field = responses.receptive_field
    patches, inside = [], []
    for value, index, (y, x) in zip(
        *(each[channel].tolist() for each in (responses.top_values, responses.top_images, responses.top_positions)),
        strict=True,
    ):
        if not value > 0:
            break
        image = image_of(images[index])
        whole = image, torch.ones(image.shape[1:], dtype=torch.bool)
        patch, there = whole if field.is_whole_image else field.crop(image, y, x)
        patches.append(patch)
        inside.append(there)
    if not patches:
        image = image_of(images[0])
        shape = tuple(image.shape[1:]) if field.is_whole_image else (field.size, field.size)
        return image.new_zeros(0, len(image), *shape), torch.zeros(0, *shape, dtype=torch.bool)
    if len({patch.shape for patch in patches}) > 1:
        raise RfvizError("this layer sees whole images, which are of several sizes: give images of one size.")
    return torch.stack(patches), torch.stack(inside)
