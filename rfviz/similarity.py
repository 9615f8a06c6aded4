"""How alike two pictures are: the correlation over pixels and colours, each picture less its mean colour."""

from torch import Tensor
from torch.nn import functional as F


def centred(images: Tensor) -> Tensor:
    """Take the mean colour off images `(..., 3, R, R)`."""
    return images - images.mean(dim=(-2, -1), keepdim=True)


def correlations(first: Tensor, second: Tensor) -> Tensor:
    """Correlate every image of one set with every image of another.

    Parameters
    ----------
    first, second : Tensor, shapes (A, 3, R, R) and (B, 3, R, R)
        RGB, or any three colour channels.

    Returns
    -------
    Tensor of float64, shape (A, B)
        In [-1, 1]; 0 where an image is of one colour.
    """
    first, second = (F.normalize(centred(images.double()).flatten(1), dim=1) for images in (first, second))
    return (first @ second.T).clamp(-1, 1)
