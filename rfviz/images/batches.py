"""Images, batch by batch: all of them, the share of one process, or the rest after an interruption."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from rfviz.errors import RfvizError, reraising
from rfviz.images.data import Indexed

CHANNELS = (1, 3, 4)
"""Of images: grey, RGB, or RGB with a fourth."""

Images = Tensor | Indexed | Iterable
"""Images of one size as a tensor (N, 3, H, W), a data set, or an iterable of batches."""


@dataclass(frozen=True)
class Batch:
    """Images of one size.

    Parameters
    ----------
    index : Tensor of int64, shape (N,)
        Number of each image among all.
    images : Tensor, shape (N, 3, H, W)
        RGB in [0, 1], floating point.
    complete : bool
        Nothing of what was loaded together with it is still to come: a place where a pass may stop and go on.
    """

    index: Tensor
    images: Tensor
    complete: bool = True


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_indexed(images: Images) -> bool:
    """Tell whether images can be asked for by number, as often as one likes; a stream passes by once."""
    stream = isinstance(images, IterableDataset)  # which may have a length, and an item that it refuses to give
    return hasattr(images, "__getitem__") and hasattr(images, "__len__") and not stream


def batches(
    images: Images,
    batch_size: int,
    *,
    workers: int = 0,
    indices: Sequence[int] | None = None,
    share: tuple[int, int] = (0, 1),
    skip: int = 0,
    pin_memory: bool = False,
    colours: int | None = 3,
) -> Iterator[Batch]:
    """Go through images batch by batch.

    Parameters
    ----------
    images : Tensor (N, 3, H, W), data set or iterable of batches
        RGB in [0, 1], floating point, or as many channels as the network takes: 1, 3 or 4. Labels, where an item or a
        batch is a pair, are dropped. A data set may mix image sizes: a batch is then divided where the size changes.
        Its items, or those of a list, may be PIL images, of 8 or 16 bits.
    batch_size : int
        Images that are loaded together; an iterable brings batches of its own.
    workers : int
        Processes that load the items of a data set.
    indices : sequence of int, optional
        Only these images, in this order; not for an iterable.
    share : (int, int)
        ``(r, n)`` takes the batches r, r + n, r + 2n, ...: the share of process r of n.
    skip : int
        Leave out so many batches of the share, which were seen before.
    pin_memory : bool
        Put the images into page-locked memory, from where they go to a GPU without waiting.
    colours : int, optional
        Of what PIL images become; see `image_of`.

    Raises
    ------
    RfvizError
        If there are no images, or if one is not a floating-point image in [0, 1]; the message names the first.
    """
    if isinstance(images, (str, os.PathLike)):
        raise RfvizError(
            f"images are {str(images)!r}, a name: read the photographs of a folder with "
            "rfviz.images.data.Evaluation(rfviz.images.folders.photographs(folder, resize, crop))."
        )
    if is_indexed(images) and indices is None:
        indices = range(len(images))  # type: ignore[arg-type]
    if indices is not None and not len(indices):
        raise RfvizError("there are no images: give at least one.")
    if isinstance(images, Tensor):
        assert indices is not None
        found = _of_tensor(images, _plan(indices, batch_size, share, skip))
    elif indices is not None:
        found = _of_data_set(images, _plan(indices, batch_size, share, skip), workers, colours)
    else:
        found = _of_stream(images, share, skip)  # type: ignore[arg-type]
    for batch in found:
        _check(batch)
        pinned = pin_memory and batch.images.device.type == "cpu"
        yield Batch(batch.index, batch.images.pin_memory(), batch.complete) if pinned else batch


SLACK = 1e-4
"""How far values may lie outside [0, 1]: rounding."""


def _check(batch: Batch) -> None:
    """Raise RfvizError unless the images of a batch are what every analysis takes, and name the first that is not."""
    images, first = batch.images, int(batch.index[0])
    if images.dim() != 4 or images.shape[1] not in CHANNELS or not images.is_floating_point():
        raise RfvizError(
            f"image {first}: expected floating-point RGB images (N, 3, H, W) in [0, 1], "
            f"got {images.dtype} of shape {tuple(images.shape)}{': divide by 255' * (images.dtype == torch.uint8)}."
        )
    low, high = (float(each) for each in images.aminmax())
    if (low >= -SLACK and high <= 1 + SLACK) or not (math.isfinite(low) and math.isfinite(high)):
        return  # what is not finite is told of the response that it makes
    outside = [number for number, image in enumerate(images) if image.min() < -SLACK or image.max() > 1 + SLACK]
    if low >= 0 and high > 2:
        remedy = "these look like 8-bit values; divide them by 255"
    elif low < 0 and images.shape[1] == 3:
        remedy = "these look normalised already; give the images as they are, and what normalises them as preprocess"
    else:
        remedy = "clamp them to [0, 1]"
    raise RfvizError(
        f"image {int(batch.index[outside[0]])} has values from {low:.3g} to {high:.3g}, but RGB goes from 0 to 1: "
        f"{remedy}."
    )


_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def image_of(item: Any, colours: int | None = 3) -> Tensor:
    """Return the image of an item of a data set, which may be (image, label): a tensor as it is, or a PIL image as one.

    PIL images get so many `colours`; with None, grey ones and those with a fourth channel stay such.
    """
    image = item[0] if isinstance(item, (tuple, list)) else item
    if isinstance(image, Tensor):
        return image
    if not hasattr(image, "convert"):
        raise RfvizError(
            f"an image is of type {type(image).__name__}: give tensors (3, H, W) in [0, 1], or PIL images."
        )
    image = ImageOps.exif_transpose(image)  # upright, as one from a folder
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or not 255 < values.max() <= 65535:
            raise RfvizError(
                f"an image of mode {image.mode!r} has values from {values.min():.3g} to {values.max():.3g}, and "
                "nothing says what is white: give tensors in [0, 1], or images of 8 or 16 bits."
            )
    image = eight_bits(image)
    mode = image.mode if colours is None else _MODES.get(colours)
    pixels = torch.from_numpy(np.array(image.convert(mode if mode in _MODES.values() else "RGB")))
    return (pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)).float() / 255


def eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper byte of 16-bit grey images, whose values Pillow's own conversion would cut off at 255."""
    if not image.mode.startswith("I"):  # "I;16" and its kin; "I" for portable grey maps
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))


class AsTensors:
    """A data set or list whose items may be PIL images, as one of tensors.

    Parameters
    ----------
    source : data set or sequence
        Items are images, or (image, label).
    colours : int, optional
        See `image_of`.
    """

    def __init__(self, source: Indexed, colours: int | None = None):
        self.source, self.classes, self.colours = source, getattr(source, "classes", None), colours

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        item = self.source[index]
        image = image_of(item, self.colours)
        return (image, *item[1:]) if isinstance(item, (tuple, list)) else image


def _plan(indices: Sequence[int], batch_size: int, share: tuple[int, int], skip: int) -> list[Sequence[int]]:
    """Cut indices into batches and return those of a share that are still to come."""
    rank, processes = share
    begins = range(0, len(indices), batch_size)[rank::processes][skip:]
    return [indices[begin : begin + batch_size] for begin in begins]


def _of_tensor(images: Tensor, plan: list[Sequence[int]]) -> Iterator[Batch]:
    for part in plan:
        if isinstance(part, range) and part.step == 1:  # without a copy
            yield Batch(torch.arange(part.start, part.stop), images[part.start : part.stop])
        else:
            index = torch.tensor(part)
            yield Batch(index, images[index])


def _of_data_set(images: Any, plan: list[Sequence[int]], workers: int, colours: int | None) -> Iterator[Batch]:
    loader = DataLoader(
        images, batch_sampler=plan, num_workers=workers, collate_fn=list,  # type: ignore[arg-type]
        generator=torch.Generator(),  # not that of whoever calls: its numbers are not used up
    )  # fmt: skip
    for part, items in zip(plan, reraising(loader), strict=True):
        loaded = [image_of(item, colours) for item in items]
        kinds = [(image.shape, image.dtype) for image in loaded]  # stack would turn integers into floating point
        begins = [i for i in range(len(loaded)) if i == 0 or kinds[i] != kinds[i - 1]]
        for begin, end in zip(begins, [*begins[1:], len(loaded)], strict=True):
            yield Batch(torch.tensor(part[begin:end]), torch.stack(loaded[begin:end]), end == len(loaded))


def _of_stream(images: Iterable, share: tuple[int, int], skip: int) -> Iterator[Batch]:
    rank, processes = share
    first = 0
    for number, batch in enumerate(batch for item in images if len(batch := image_of(item))):  # one may be empty
        if number % processes == rank and number // processes >= skip:
            yield Batch(torch.arange(first, first + len(batch)), batch)
        first += len(batch)
    if first == 0:
        raise RfvizError("there are no images: give at least one.")
