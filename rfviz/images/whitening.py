"""Whitening with respect to the colour channels, and the way back to RGB."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfviz.errors import RfvizError, unknown

_log = logging.getLogger(__name__)

KINDS = ("channel", "zca", "imagenet", "none")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Whitening:
    """The affine map ``matrix @ (rgb - mean)`` of every pixel.

    Parameters
    ----------
    mean : Tensor, shape (3,)
        Mean colour, RGB in [0, 1].
    matrix : Tensor, shape (3, 3)
        Diagonal for ``"channel"``, symmetric for ``"zca"``, the identity for ``"none"``.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Whiten images `(..., 3, H, W)`, RGB in [0, 1].

        The result is always a new tensor: a network may overwrite it.

        Raises
        ------
        RfvizError
            If the images have another number of channels; what is the same for all colours takes any.
        """
        if self.is_identity:
            return images.clone()
        if images.shape[-3] != len(self.mean) and self._is_one_for_all:
            return (images - self.mean[0].to(images)) * self.matrix[0, 0].to(images)
        if images.shape[-3] != len(self.mean):
            raise RfvizError(
                f"the images have {images.shape[-3]} channels, but preprocess is made for {len(self.mean)}: give one "
                "mean and one standard deviation for each."
            )
        return _mix(self.matrix, images - self.mean.to(images, non_blocking=True)[:, None, None])

    @property
    def is_identity(self) -> bool:
        """Whether images stay as they are."""
        return not self.mean.any() and torch.equal(self.matrix, torch.eye(len(self.mean), dtype=self.matrix.dtype))

    @property
    def _is_one_for_all(self) -> bool:
        one = torch.eye(len(self.mean), dtype=self.matrix.dtype) * self.matrix[0, 0]
        return bool((self.mean == self.mean[0]).all()) and torch.equal(self.matrix, one)

    def to_rgb(self, images: Tensor, *, clip: bool = True) -> Tensor:
        """Take whitened images `(..., 3, H, W)` back to RGB, clipped to [0, 1] unless `clip` is false."""
        if images.shape[-3] != len(self.mean) and self._is_one_for_all:
            rgb = images / self.matrix[0, 0].to(images) + self.mean[0].to(images)
        else:
            inverse = torch.linalg.inv(self.matrix.double())
            rgb = _mix(inverse, images) + self.mean.to(images)[:, None, None]
        return rgb.clamp(0, 1) if clip else rgb

    def to_json(self) -> dict:
        """Return the two parameters as lists of numbers."""
        return {"mean": self.mean.tolist(), "matrix": self.matrix.tolist()}

    @classmethod
    def from_json(cls, stored: dict) -> "Whitening":
        """Rebuild a whitening from what `to_json` returned.

        Raises
        ------
        ValueError
            If it is not a mean of 3 finite numbers and a matrix of 3 x 3.
        """
        mean, matrix = (torch.tensor(stored[key], dtype=torch.float64) for key in ("mean", "matrix"))
        if mean.shape != (3,) or matrix.shape != (3, 3) or not (mean.isfinite().all() and matrix.isfinite().all()):
            raise ValueError("its whitening is not a mean of 3 numbers and a matrix of 3 x 3")
        return cls(mean, matrix)


def _mix(matrix: Tensor, images: Tensor) -> Tensor:
    # The matrix is looked at where it is: to look at it on a GPU would mean to wait for all that the GPU has to do.
    diagonal = matrix.diagonal()
    if torch.equal(matrix, torch.diag(diagonal)):
        return images * diagonal.to(images, non_blocking=True)[:, None, None]
    return torch.einsum("ij,...jhw->...ihw", matrix.to(images, non_blocking=True), images)


NONE = Whitening(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
"""Leaves RGB as it is."""

IMAGENET = Whitening(
    torch.tensor(IMAGENET_MEAN, dtype=torch.float64), torch.diag(1 / torch.tensor(IMAGENET_STD, dtype=torch.float64))
)
"""What torchvision's published weights were trained with."""

_FIXED = {"imagenet": IMAGENET, "none": NONE}


def of(given: Any) -> Whitening:
    """Return the whitening that something says which normalises images.

    Parameters
    ----------
    given : Whitening, str, transform, mapping, pair or None
        - ``"imagenet"``, ``"none"``, or numbers: as many means as standard deviations, such as
          ``"0.5,0.5,0.5,0.2,0.2,0.2"``, or one of each for all colours;
        - torchvision's ``Normalize``, or what contains one: weights such as ``ResNet18_Weights.DEFAULT``, their
          ``transforms()``, a ``Compose``. Only the normalization is read, not the size of the images;
        - a mapping with ``mean`` and ``std``, such as timm's ``net.pretrained_cfg``;
        - a pair (means, standard deviations);
        - None for none.

    Raises
    ------
    RfvizError
        If it says nothing of the kind.
    """
    if given is None:
        return NONE
    if isinstance(given, Whitening):
        return given
    if isinstance(given, str):
        if given in _FIXED:
            return _FIXED[given]
        if not re.fullmatch(r"[-+.\deE ]+(,[-+.\deE ]+)+", given):
            raise unknown("preprocess", given, [*_FIXED, "MEAN,STD in numbers"])
        try:
            numbers = [float(each) for each in given.split(",")]
        except ValueError as error:
            raise RfvizError(f"preprocess {given!r} is not made of numbers, such as 0.5,0.25.") from error
        return _normalizing(numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :], given)
    if isinstance(given, Mapping):
        if "mean" in given and "std" in given:
            return _normalizing(given["mean"], given["std"], "the mapping")
    elif isinstance(given, Sequence) and len(given) == 2:
        return _normalizing(given[0], given[1], str(given))
    elif (mean := getattr(given, "mean", None)) is not None and not callable(mean) and hasattr(given, "std"):
        return _normalizing(mean, given.std, type(given).__name__)
    else:
        parts: Any = getattr(given, "transforms", None) or getattr(given, "children", list)()
        if callable(parts) and not isinstance(parts, torch.nn.Module):  # of weights, such as ResNet18_Weights.DEFAULT
            return of(parts())
        found = [_or_none(part) for part in parts]
        if any(found):
            return next(each for each in found if each)
    raise RfvizError(
        f"preprocess is {type(given).__name__}, of which no mean and standard deviation can be read: give 'imagenet', "
        "'none', torchvision's transforms, or a pair (means, standard deviations)."
    )


def warn_without(expected: Whitening | None, name: str) -> None:
    """Say that nothing normalises the images of a network whose published weights expect it."""
    if expected is None:
        return
    mean, deviation = expected.mean.tolist(), (1 / expected.matrix.diagonal()).tolist()
    numbers = ",".join(f"{each:.3g}" for each in (*mean, *deviation))
    given = "imagenet" if mean == list(IMAGENET_MEAN) else numbers
    _log.warning(
        "rfviz: the published weights of %s expect images that are normalised, and these are not: give "
        "preprocess='%s' (--preprocess), or preprocess='none' if the weights are others.", name, given,
    )  # fmt: skip


def _or_none(part: Any) -> Whitening | None:
    try:
        return of(part)
    except RfvizError:
        return None


def _normalizing(mean: Any, std: Any, name: str) -> Whitening:
    try:
        means, deviations = (torch.as_tensor(each, dtype=torch.float64).flatten() for each in (mean, std))
    except (TypeError, ValueError, RuntimeError) as error:
        raise RfvizError(f"preprocess {name}: mean {mean!r} and standard deviation {std!r} are not numbers.") from error
    if len(means) != len(deviations) or not len(means) or not (means.isfinite().all() and (deviations > 0).all()):
        raise RfvizError(
            f"preprocess {name}: give as many means as standard deviations, and these above 0; got {mean} and {std}."
        )
    if means.max() > 1:
        raise RfvizError(f"preprocess {name}: images are in [0, 1], so divide means and standard deviations by 255.")
    if len(means) == 1:  # one for all colours
        means, deviations = means.expand(3).clone(), deviations.expand(3).clone()
    return Whitening(means, torch.diag(1 / deviations))


def fit(images: Iterable[Tensor], kind: str = "channel") -> Whitening:
    """Compute a whitening from the pixels of training images.

    Parameters
    ----------
    images : iterable of Tensor, shape (3, H, W)
        RGB in [0, 1], or uint8.
    kind : {"channel", "zca", "imagenet", "none"}
        ``"channel"`` takes the mean off and divides by the standard deviation per colour channel (our reading of the
        paper's "whitened with respect to colour channels"); ``"zca"`` makes the three colour channels uncorrelated
        with unit variance; ``"imagenet"`` takes torchvision's numbers, for weights that were trained with them;
        ``"none"`` leaves RGB as it is. The last two look at no image.

    Raises
    ------
    RfvizError
        If the kind is unknown, or there are no images.
    """
    if kind not in KINDS:
        raise unknown("whitening", kind, KINDS)
    if kind in _FIXED:
        return _FIXED[kind]
    count, total, products = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for image in images:
        pixels = image.flatten(1).double() / (255 if image.dtype == torch.uint8 else 1)
        count += pixels.shape[1]
        total += pixels.sum(1)
        products += pixels @ pixels.T
    if count == 0:
        raise RfvizError("there are no images to compute a whitening from: give some, or use the kind 'none'.")
    mean = total / count
    covariance = products / count - torch.outer(mean, mean)
    tiny = 1e-6  # images of one colour have no variance: leave them at 0 instead of dividing by it
    if kind == "channel":
        return Whitening(mean, torch.diag(covariance.diagonal().clamp(min=tiny).rsqrt()))
    variance, axes = torch.linalg.eigh(covariance)
    return Whitening(mean, axes @ torch.diag(variance.clamp(min=tiny).rsqrt()) @ axes.T)
