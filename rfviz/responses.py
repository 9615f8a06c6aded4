"""One pass over the images: the strongest stimuli, the mean preferred stimulus and the activity of every channel.

The pass feeds three small accumulators per layer. Each keeps a state whose size does not depend on the number of
images, takes the responses of a batch with `update`, and gives its part of the answer with `result`:

================  ==================================================================================
`TopStimuli`      which neurons respond most strongly, and to which image
`MeanStimulus`    the mean receptive-field patch over neurons (eqs. 3 and 4 of the paper)
`Activity`        maximum, mean, share of neurons that fire, histogram
================  ==================================================================================
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from rfviz import receptive_field
from rfviz.data import Indexed
from rfviz.errors import RfvizError
from rfviz.graph import ForwardPass
from rfviz.receptive_field import ReceptiveField
from rfviz.whitening import NONE, Whitening

Images = Tensor | Indexed | Iterable
"""Images of one size as a tensor (N, 3, H, W), a data set, or an iterable of batches."""

HISTOGRAM_EDGES = 2.0 ** torch.arange(-10, 11)
"""Edges between the logarithmic bins of `LayerResponses.histogram`: octaves from 2^-10 to 2^10."""

_EMPTY = -1


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
        The strongest responses, descending; ties go to the lower image index, then to raster order. Where there are
        fewer than k candidates, the rest is -inf.
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
        others one octave each, between `HISTOGRAM_EDGES`.
    mean_stimulus : Tensor, shape (C, 3, R, R), or None
        Mean patch over all neurons with response > 0 (eqs. 3 and 4), RGB in [0, 1]; pixels outside the image do not
        count; 0 where nothing was counted.
    mean_count : Tensor of int64, shape (C, R, R), or None
        Number of patches that each pixel of the mean comes from.
    strongest_stimulus : Tensor, shape (C, 3, R, R), or None
        The same mean over the n neurons with the strongest positive response only.
    strongest_count : Tensor of int64, shape (C, R, R), or None
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

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return len(self.maximum)

    @property
    def firing_rate(self) -> Tensor:
        """Share of neurons with response > 0, float64 `(C,)` in [0, 1]."""
        return self.positive_count.double() / self.neuron_count


class TopStimuli:
    """Keeps the k strongest neurons of every channel.

    Parameters
    ----------
    k : int
    per_image : 1 or None
        1 lets every image give its strongest neuron only; None lets all neurons compete.
    """

    # A candidate is (response, key). The key packs image, row and column so that the smaller key wins a tie.
    _IMAGE, _ROW = 1 << 40, 1 << 20

    def __init__(self, k: int, per_image: int | None = 1):
        self.k, self.per_image = k, per_image
        self.values: Tensor | None = None
        self.keys: Tensor | None = None

    def update(self, first: int, responses: Tensor) -> None:
        """Take the responses `(N, C, h, w)` of the images with indices from `first` on."""
        n, channels, height, width = responses.shape
        flat = responses.flatten(2)
        if self.per_image == 1:
            values, position = flat.max(dim=2)  # of equal responses, the first in raster order
        else:
            values = flat
            position = torch.arange(height * width, device=flat.device).expand_as(flat)
        image = torch.arange(first, first + n, device=flat.device).view(n, *[1] * (values.ndim - 1))
        keys = image * self._IMAGE + position // width * self._ROW + position % width
        self._keep(
            values.transpose(0, 1).reshape(channels, -1).cpu(),
            keys.expand_as(values).transpose(0, 1).reshape(channels, -1).cpu(),
        )

    def _keep(self, values: Tensor, keys: Tensor) -> None:
        if self.values is not None and self.keys is not None:
            values, keys = torch.cat([self.values, values], 1), torch.cat([self.keys, keys], 1)
        by_key = keys.argsort(dim=1)
        values, keys = values.gather(1, by_key), keys.gather(1, by_key)
        by_value = values.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        self.values, self.keys = values.gather(1, by_value), keys.gather(1, by_value)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return values `(C, k)`, images `(C, k)` and positions `(C, k, 2)`."""
        assert self.values is not None and self.keys is not None
        missing = self.k - self.values.shape[1]
        values = F.pad(self.values, (0, missing), value=-torch.inf)
        keys = F.pad(self.keys, (0, missing), value=_EMPTY)
        positions = torch.stack([keys % self._IMAGE // self._ROW, keys % self._ROW], dim=-1)
        positions[keys == _EMPTY] = _EMPTY
        return values, keys.div(self._IMAGE, rounding_mode="floor"), positions


class MeanStimulus:
    """Averages the receptive-field patches of chosen neurons, pixel by pixel over those patches that have the pixel."""

    def __init__(self, field: ReceptiveField):
        self.field = field
        self.total: Tensor | None = None
        self.count: Tensor | None = None

    def update(self, images: Tensor, chosen: Tensor) -> None:
        """Add the patches of the neurons where `chosen` (N, C, h, w) is true, out of `images` (N, 3, H, W)."""
        size, channels = self.field.size, chosen.shape[1]
        if self.total is None or self.count is None:
            self.total = torch.zeros(channels, 3, size, size, dtype=torch.float64)
            self.count = torch.zeros(channels, size, size, dtype=torch.int64)
        for image, neurons in zip(images, chosen, strict=True):
            # A fourth colour channel of ones turns into the count of patches in which a pixel exists.
            exists = torch.ones_like(image[:1])
            patches = self._all_patches(torch.cat([image, exists]), neurons.shape[1:])
            summed = (neurons.flatten(1).to(patches) @ patches.T).view(channels, 4, size, size).cpu()
            self.total += summed[:, :3]
            self.count += summed[:, 3].round().long()

    def _all_patches(self, image: Tensor, grid: Sequence[int]) -> Tensor:
        """Cut the patch of every neuron of the grid out of an image `(c, H, W)`: `(c * R * R, h * w)`."""
        size, stride, start = self.field.size, self.field.stride, self.field.start
        pads = []
        for length, neurons in zip(reversed(image.shape[1:]), reversed(grid), strict=True):
            end = stride * (neurons - 1) + start + size  # a negative pad cuts off what no neuron sees
            pads += [-start, end - length]
        return F.unfold(F.pad(image, pads)[None], size, stride=stride)[0]

    def result(self) -> tuple[Tensor, Tensor]:
        """Return the mean `(C, 3, R, R)` in float32 and the count `(C, R, R)`."""
        assert self.total is not None and self.count is not None
        return (self.total / self.count.clamp(min=1)[:, None]).float(), self.count.clone()


class Activity:
    """Counts how often and how strongly every channel responds."""

    def __init__(self) -> None:
        self.neurons = 0
        self.maximum: Tensor | None = None
        self.total: Tensor | None = None
        self.histogram: Tensor | None = None

    def update(self, responses: Tensor) -> None:
        """Take responses `(N, C, h, w)`."""
        flat = responses.transpose(0, 1).flatten(1).contiguous()
        channels, neurons = flat.shape
        edges = torch.cat([torch.zeros(1), HISTOGRAM_EDGES]).to(flat)
        # right=True: a bin begins with its edge. Exactly 0 would so be counted as positive and is put back into bin 0.
        bins = torch.bucketize(flat, edges, right=True) - (flat == 0).long()
        bins += torch.arange(channels, device=flat.device)[:, None] * (len(edges) + 1)
        histogram = torch.bincount(bins.flatten(), minlength=channels * (len(edges) + 1)).view(channels, -1).cpu()
        maximum, total = flat.amax(1).double().cpu(), flat.sum(1, dtype=torch.float64).cpu()
        if self.maximum is None or self.total is None or self.histogram is None:
            self.maximum, self.total, self.histogram = maximum, total, histogram
        else:
            self.maximum = torch.maximum(self.maximum, maximum)
            self.total += total
            self.histogram += histogram
        self.neurons += neurons

    def result(self) -> dict[str, Tensor]:
        """Return `maximum`, `mean`, `positive_count` `(C,)` and `histogram` `(C, 23)`."""
        assert self.maximum is not None and self.total is not None and self.histogram is not None
        return {
            "maximum": self.maximum.clone(),  # a clone can be changed in place, which an inference tensor cannot
            "mean": self.total / self.neurons,
            "positive_count": self.histogram[:, 1:].sum(1),
            "histogram": self.histogram.clone(),
        }


def batches(images: Images, batch_size: int, workers: int = 0) -> Iterator[tuple[int, Tensor]]:
    """Go through images batch by batch: `(index of the first, images (N, 3, H, W))`.

    Parameters
    ----------
    images : Tensor (N, 3, H, W), data set or iterable of batches
        RGB in [0, 1], floating point. Labels, where an item or a batch is a pair, are dropped. A data set may mix
        image sizes: a batch then ends where the size changes.
    batch_size : int
    workers : int
        Processes that load the items of a data set.

    Raises
    ------
    RfvizError
        If there are no images, or if one is not a floating-point RGB image.
    """
    first = 0
    for batch in _raw_batches(images, batch_size, workers):
        if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
            raise RfvizError(
                f"image {first}: expected floating-point RGB images (N, 3, H, W) in [0, 1], "
                f"got {batch.dtype} of shape {tuple(batch.shape)}."
            )
        yield first, batch
        first += len(batch)
    if first == 0:
        raise RfvizError("there are no images: give at least one.")


def _raw_batches(images: Images, batch_size: int, workers: int) -> Iterator[Tensor]:
    if isinstance(images, Tensor):
        yield from images.split(batch_size) if len(images) else ()
    elif hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        for items in DataLoader(images, batch_size, num_workers=workers, collate_fn=list):  # type: ignore[arg-type]
            same: list[Tensor] = []
            for item in items:
                image = item[0] if isinstance(item, (tuple, list)) else item
                if same and image.shape != same[0].shape:
                    yield torch.stack(same)
                    same = []
                same.append(image)
            yield torch.stack(same)
    else:
        for batch in images:
            yield batch[0] if isinstance(batch, (tuple, list)) else batch


def collect(
    net: nn.Module,
    images: Images,
    layers: Sequence[str],
    top_k: int = 16,
    *,
    per_image: int | None = 1,
    mean_stimulus: bool = True,
    strongest: int | None = None,
    neuron: tuple[int, int] | None = None,
    preprocess: Whitening = NONE,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = False,
) -> dict[str, LayerResponses]:
    """Run the images through a network once and gather what each channel of some layers responds to.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode, on its own device.
    images : Tensor (N, 3, H, W), data set or iterable of batches
        RGB in [0, 1]; see `batches`.
    layers : sequence of str
        Names as in `rfviz.graph`.
    top_k : int
        Number of preferred stimuli per channel.
    per_image : 1 or None
        1 takes the strongest neuron of each image, None every neuron.
    mean_stimulus : bool
        Also average the patches of all neurons with response > 0 (eqs. 3 and 4).
    strongest : int, optional
        Also average the patches of this many strongest neurons. Takes a second look at the images, without the
        network, so `images` must be a tensor or a data set.
    neuron : (int, int), optional
        Average over the positive images of this one neuron (y, x), as eq. 3 has it to the letter, instead of over the
        neurons at all positions.
    preprocess : Whitening or callable
        Applied to the images just before the network.
    batch_size, workers : int
        Change the speed, never the result beyond rounding.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict from layer name to LayerResponses

    Raises
    ------
    RfvizError
        If a layer is unknown, an option is impossible, the images are not RGB, or a response is not finite (the
        message names the image).
    """
    if not layers:
        raise RfvizError("no layers were asked for: name at least one.")
    if top_k < 1 or batch_size < 1 or (strongest is not None and strongest < 1):
        raise RfvizError(f"top_k ({top_k}), batch_size ({batch_size}) and strongest ({strongest}) must be at least 1.")
    if per_image not in (1, None):
        raise RfvizError(f"per_image is {per_image!r}: it must be 1 (one neuron per image) or None (every neuron).")
    if strongest is not None and not hasattr(images, "__getitem__"):
        raise RfvizError("strongest needs a second look at the images: give a tensor or a data set, not an iterator.")
    layers = list(dict.fromkeys(layers))  # a layer that is named twice must not be counted twice
    fields = receptive_field.of_layers(net, layers)
    top = {layer: TopStimuli(top_k, per_image) for layer in layers}
    top_all = {layer: TopStimuli(strongest, None) for layer in layers} if strongest else {}
    mean = {layer: MeanStimulus(fields[layer]) for layer in layers} if mean_stimulus else {}
    activity = {layer: Activity() for layer in layers}
    forward = ForwardPass(net, layers)
    parameter = next(net.parameters())
    count, grids = 0, {}

    for first, batch in _with_progress(images, batch_size, workers, progress, "responses"):
        batch = batch.to(parameter.device, non_blocking=True)

        def read(layer: str, response: Tensor, first: int = first, batch: Tensor = batch) -> None:
            _refuse_not_finite(layer, response, first)
            activity[layer].update(response)
            top[layer].update(first, response)
            if layer in top_all:
                top_all[layer].update(first, response)
            if layer in mean:
                mean[layer].update(batch, _positive(response, neuron, layer))
            grids[layer, tuple(batch.shape[-2:])] = tuple(response.shape[-2:])

        with torch.inference_mode():
            forward(preprocess(batch).to(parameter.dtype), read)
        count += len(batch)

    strongest_mean = _mean_of_strongest(images, top_all, fields, grids, batch_size, workers, progress)
    results = {}
    for layer in layers:
        values, top_images, positions = top[layer].result()
        stimulus, stimulus_count = mean[layer].result() if mean else (None, None)
        strong, strong_count = strongest_mean[layer].result() if strongest_mean else (None, None)
        results[layer] = LayerResponses(
            receptive_field=fields[layer],
            image_count=count,
            neuron_count=activity[layer].neurons,
            top_values=values,
            top_images=top_images,
            top_positions=positions,
            mean_stimulus=stimulus,
            mean_count=stimulus_count,
            strongest_stimulus=strong,
            strongest_count=strong_count,
            **activity[layer].result(),
        )
    return results


def _with_progress(
    images: Images, batch_size: int, workers: int, progress: bool, what: str
) -> Iterator[tuple[int, Tensor]]:
    total = len(images) if isinstance(images, Sized) else None
    with tqdm(total=total, desc=what, unit="image", disable=not progress) as bar:
        for first, batch in batches(images, batch_size, workers):
            yield first, batch
            bar.update(len(batch))


def _refuse_not_finite(layer: str, response: Tensor, first: int) -> None:
    finite = response.isfinite().flatten(1).all(1)
    if not finite.all():
        image = first + int(finite.logical_not().nonzero()[0])
        raise RfvizError(
            f"image {image}: layer {layer!r} responds with NaN or infinity. Check the image, the weights and the "
            "batch-norm statistics."
        )


def _positive(response: Tensor, neuron: tuple[int, int] | None, layer: str) -> Tensor:
    positive = response > 0
    if neuron is None:
        return positive
    y, x = neuron
    height, width = response.shape[-2:]
    if not (0 <= y < height and 0 <= x < width):
        raise RfvizError(f"neuron {neuron} is outside the {height} x {width} feature map of layer {layer!r}.")
    only = torch.zeros_like(positive)
    only[..., y, x] = positive[..., y, x]
    return only


def _mean_of_strongest(
    images: Images,
    top: dict[str, TopStimuli],
    fields: dict[str, ReceptiveField],
    grids: dict[tuple, tuple],
    batch_size: int,
    workers: int,
    progress: bool,
) -> dict[str, MeanStimulus]:
    if not top:
        return {}
    means = {layer: MeanStimulus(fields[layer]) for layer in top}
    chosen = {layer: stimuli.result() for layer, stimuli in top.items()}
    for first, batch in _with_progress(images, batch_size, workers, progress, "mean of the strongest"):
        for layer, (values, indices, positions) in chosen.items():
            here = (indices >= first) & (indices < first + len(batch)) & (values > 0)
            channel, _ = here.nonzero(as_tuple=True)
            mask = torch.zeros(len(batch), len(values), *grids[layer, tuple(batch.shape[-2:])], dtype=torch.bool)
            mask[indices[here] - first, channel, positions[here][:, 0], positions[here][:, 1]] = True
            means[layer].update(batch, mask)
    return means


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
        RGB in [0, 1], strongest first; n is k, or less where there were fewer candidates.
    inside : Tensor of bool, shape (n, R, R)
        Which pixels exist.

    Raises
    ------
    RfvizError
        If there is no such channel.
    """
    check_channel(channel, responses.channels)
    patches, inside = [], []
    for index, (y, x) in zip(
        responses.top_images[channel].tolist(), responses.top_positions[channel].tolist(), strict=True
    ):
        if index == _EMPTY:
            break
        item = images[index]
        image = item[0] if isinstance(item, (tuple, list)) else item
        patch, there = responses.receptive_field.crop(image, y, x)
        patches.append(patch)
        inside.append(there)
    return torch.stack(patches), torch.stack(inside)


def check_channel(channel: int, channels: int) -> None:
    """Raise RfvizError unless `channel` is one of `channels` that count from 0."""
    if not 0 <= channel < channels:
        raise RfvizError(f"there is no channel {channel}: this layer has {channels}, numbered 0 to {channels - 1}.")
