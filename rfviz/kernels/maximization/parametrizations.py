"""What activation maximization changes: pixels, or coefficients that a picture is made of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rfviz.images.whitening import Whitening

FAINT = 0.01
"""Standard deviation of the noise that an ascent begins from."""

# Columns: luminance, then two axes of colour in which the pixels of natural images vary less, as the published ones of
# Olah et al. (2017); divided by the norm of the largest.
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype=torch.float64)
_COLOURS = _COLOURS / _COLOURS.norm(dim=0).max()


@dataclass(frozen=True)
class Pixels:
    """The values that the network sees, from zeros: the mean colour of what is whitened, else black. The paper's.

    Parameters
    ----------
    colours : int
        Channels of the images.
    """

    colours: int = 3

    def start(self, channels: Tensor, side: int, like: Tensor) -> Tensor:
        """Return zeros `(N, 3, side, side)`."""
        return like.new_zeros(len(channels), self.colours, side, side)

    def images(self, parameters: Tensor, side: int) -> Tensor:
        """Return the pixels themselves."""
        return parameters


@dataclass(frozen=True)
class Fourier:
    """Fourier coefficients along decorrelated axes of colour, of pictures that a screen can show.

    A step of the same size in every coefficient changes coarse structure as much as it does in natural images: the
    coefficients are divided by their frequency, and the axes of colour weighted as their pixels vary. A sigmoid keeps
    RGB within [0, 1]. The start is faint noise around `mean`, so that no two places are equal.

    Parameters
    ----------
    whitening : Whitening
        From RGB to the network's input units.
    seed : int
        The start depends on (seed, channel) and nothing else.

    References
    ----------
    C. Olah, A. Mordvintsev and L. Schubert (2017), Feature visualization, Distill.
    """

    whitening: Whitening
    seed: int = 0

    @property
    def mean(self) -> Tensor:
        """The mean colour, or middle grey where nothing tells it: the network may normalise images itself."""
        return self.whitening.mean if self.whitening.mean.any() else torch.full((3,), 0.5)

    def start(self, channels: Tensor, side: int, like: Tensor) -> Tensor:
        """Return real and imaginary parts of the coefficients `(N, 3, side, side // 2 + 1, 2)`."""
        return faint_noise((3, side, side // 2 + 1, 2), self.seed, channels, like)

    def images(self, parameters: Tensor, side: int) -> Tensor:
        """Return the pictures of some coefficients."""
        rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
        weights = (side**-0.5 / torch.hypot(rows, columns).clamp(min=1 / side)).to(parameters)
        flat = torch.fft.irfft2(torch.view_as_complex(parameters) * weights, s=(side, side), norm="ortho")
        around = torch.logit(self.mean, eps=1e-3).to(parameters)
        coloured = torch.einsum("ij,njyx->niyx", _COLOURS.to(parameters), flat)
        return self.whitening(torch.sigmoid(coloured + around[:, None, None]))


Parametrization = Pixels | Fourier
"""One of these, or anything that has the same methods."""


def faint_noise(shape: tuple[int, ...], seed: int, channels: Tensor, like: Tensor) -> Tensor:
    """Return normal noise of standard deviation `FAINT`, `(N, *shape)`, that depends on seed and channel."""
    drawn = [np.random.default_rng((seed, channel)).standard_normal(shape) for channel in channels.tolist()]
    return FAINT * torch.from_numpy(np.stack(drawn)).to(like)
