"""Whitening with respect to the colour channels, and the way back to RGB."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rfviz.errors import RfvizError, unknown

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
        """Whiten images `(..., 3, H, W)`, RGB in [0, 1]."""
        return _mix(self.matrix, images - self.mean.to(images, non_blocking=True)[:, None, None])

    def to_rgb(self, images: Tensor, *, clip: bool = True) -> Tensor:
        """Take whitened images `(..., 3, H, W)` back to RGB, clipped to [0, 1] unless `clip` is false."""
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
