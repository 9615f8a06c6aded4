"""Colour: cone weights in the centre of a neuron and around it, and whether a neuron is double-opponent.

**Definition.** A neuron is *chromatic* if colours of equal luminance drive it at least `CHROMATIC` times as much as
greys do (Johnson, Hawken and Shapley, 2001) and its weights for the three cones have both signs: the smaller side holds
`OPPOSED` of their sum or more. It is *double-opponent* if it is chromatic and what it wants of the two colour axes, L-M
and S, is the opposite at another place: with its drives ``c`` by colours in one place and ``s`` by the same colours in
the other, the index ``max(0, -(c . s)) / max(norm(c), norm(s))**2`` is `LEAST` or more, reliably (Shapley and Hawken,
2011). It is *single-opponent* if it is chromatic and no more, else *achromatic*.
The index is that of `rfviz.kernels.tuning.centre_surround`, of drives instead of colours.

Signs of cone weights alone would not do: L and M cones overlap so much that a sum of R, G and B weighs them with
opposite signs.

- **Neurons** (`measure`) are shown a spot and the ring around it, of several sizes, in colours along the three axes of
  `rfviz.kernels.tuning.opponent`, on grey. What counts is the value before the ReLU, where one ends the layer, minus
  that for grey. One half of what is shown has the one sign and is moved sideways by a pixel, the other half has the
  opposite sign and is moved up and down: a linear neuron with coarse weights does the same in both, and the index must
  hold in each. Of the sizes, those count that drive the neuron by colours half as much as the best, and of these the
  one of the largest index. How strongly a neuron follows greys is told by gratings as well: an edge cell has no use for
  spots.
- **First filters** (`of_filters`) are linear, so their weights say everything exactly. The two places are where the
  main chromatic profile of the filter is positive and where it is negative; they may lie side by side. The two halves
  are the pixels of a chequerboard: what the profile is at one colour of squares must be told by the other (their
  correlation is `TOLD` or more), which white noise does not do. A smooth filter without a mean would pass by chance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.pictures import VANISHED
from rfviz.kernels.responses import normalizing
from rfviz.kernels.tuning import Neuron, opponent
from rfviz.kernels.tuning.gratings import for_field
from rfviz.nets import graph, receptive_field

CLASSES = ("achromatic", "single-opponent", "double-opponent", "silent")

CHROMATIC = 0.5
"""Least drive by colours of equal luminance over that by greys, each at its strongest on a screen."""

OPPOSED = 0.1
"""Least share of the cone weights, in magnitude, that has the sign of the smaller side."""

LEAST = 0.1
"""Least index of opposition between the two places."""

TOLD = 0.5
"""Least correlation of one half of a filter's pixels with what the other half tells of them."""

RADII = (1 / 8, 1 / 6, 1 / 4)
"""Of the spots, in sides of the field; the rings go from there to twice as far."""

CONTRAST = 0.4
"""Share of what a screen can show. sRGB, which is what networks see, is so far from proportional to light that at full
contrast a filter that is linear in sRGB would seem to have other cone weights."""

GRATINGS = (4, 3, 4)
"""Orientations, frequencies and phases of what else is shown."""

_SHIFTS = (((0, -1), (0, 1)), ((-1, 0), (1, 0)))
"""Of each half, px (down, right)."""

_SILENT = 1e-6


@dataclass(frozen=True)
class ColourTuning:
    """Cone weights of C neurons in two places.

    Parameters
    ----------
    drives : Tensor of float64, shape (C, S, 2, 2, 3)
        S sizes, of which a filter has one; two places, the centre and its surround or those of a filter; two halves;
        how strongly +1 times `CONTRAST` along luminance, L-M and S drives the neuron there.
    strongest : Tensor of float64, shape (C, 3)
        The largest drive along each axis, by anything that was shown.
    told : Tensor of float64, shape (C,)
        Reliability: of filters how well half of the pixels tells the other half; infinite where there are other halves.
    responds : Tensor of bool, shape (C,)
        Whether anything drives the neuron; a filter that has vanished is none, whatever is left of its shape.
    """

    drives: Tensor
    strongest: Tensor
    told: Tensor
    responds: Tensor

    @property
    def best(self) -> Tensor:
        """The size, of those that drive by colours half as much as the best, of the largest index, `(C,)`.

        Where no size has any, that with the strongest chromatic drive.
        """
        chromatic = self._whole[..., 1:].norm(dim=-1).amax(2)
        strong = chromatic >= chromatic.amax(1, keepdim=True) / 2
        opposite = torch.where(strong, self._opposition(self._whole), 0.0)
        ranked = torch.where(opposite.amax(1, keepdim=True) > 0, opposite, chromatic)
        return ranked.argmax(1)

    @property
    def index(self) -> Tensor:
        """How opposite the colours are that the two places want, `(C,)` in [0, 1]; that of the worse half."""
        halves = torch.stack([self._opposition(self.drives[:, :, :, half]) for half in (0, 1)]).amin(0)
        return halves.gather(1, self.best[:, None])[:, 0]

    @property
    def cone_weights(self) -> Tensor:
        """Weights for contrasts of L, M and S cones in the place that colours drive more, `(C, 3)`; sum of sizes 1."""
        whole = self._at_best(self._whole)
        place = whole[..., 1:].norm(dim=-1).argmax(1)
        drive = whole[torch.arange(len(whole)), place]
        weights = drive @ torch.linalg.inv(cone_contrasts()).T
        return F.normalize(weights, p=1, dim=1)

    @property
    def opposed(self) -> Tensor:
        """Share of the cone weights that has the sign of the smaller side, `(C,)` in [0, 0.5]."""
        weights = self.cone_weights
        return torch.minimum(weights.clamp(min=0).sum(1), -weights.clamp(max=0).sum(1))

    @property
    def sensitivity(self) -> Tensor:
        """The strongest drive by colours of equal luminance over that by greys, `(C,)`; inf without the latter."""
        return torch.where(self.responds, self.strongest[:, 1:].amax(1) / self.strongest[:, 0], torch.nan)

    @property
    def classes(self) -> list[str]:
        """The class of every neuron, one of `CLASSES`."""
        double = (self.index >= LEAST) & (self.told >= TOLD)
        chromatic = (self.sensitivity >= CHROMATIC) & (self.opposed >= OPPOSED)
        number = torch.where(chromatic, torch.where(double, 2, 1), 0).where(self.responds, torch.tensor(3))
        return [CLASSES[each] for each in number.tolist()]

    @property
    def _whole(self) -> Tensor:
        return self.drives.mean(3)

    def _at_best(self, by_size: Tensor) -> Tensor:
        return by_size[torch.arange(len(by_size)), self.best]

    @staticmethod
    def _opposition(drives: Tensor) -> Tensor:
        """Return the index of drives `(..., 2 places, 3 axes)`."""
        c, s = drives[..., 0, 1:], drives[..., 1, 1:]
        largest = torch.maximum(c.norm(dim=-1), s.norm(dim=-1))
        return torch.where(largest > 0, (-(c * s).sum(-1)).clamp(min=0) / largest**2, 0.0)


def cone_contrasts() -> Tensor:
    """Return the contrasts of L, M and S cones that +1 times `CONTRAST` along each axis makes, `(axis, cone)`."""
    to_cones = torch.from_numpy(opponent.LMS_FROM_RGB)
    grey = to_cones @ opponent.to_linear(torch.full((3,), opponent.GREY, dtype=torch.float64))
    return torch.stack([CONTRAST * (to_cones @ opponent.direction(axis)) / grey for axis in opponent.AXES])


def measure(net: nn.Module, layer: str, *, preprocess: Any = None) -> ColourTuning:
    """Show spots, rings and gratings along the three axes of colour to the neuron of every channel of a layer.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode.
    layer : str
        Name as in `rfviz.nets.graph`.
    preprocess : Whitening, transform, str or pair, optional
        As for `rfviz.kernels.responses.collect`.

    Raises
    ------
    RfvizError
        If the layer is unknown, or a neuron of it cannot be looked at alone.
    """
    size = receptive_field.of(net, layer).size
    respond = Neuron(net, layer, normalizing(net, preprocess), before_relu=graph.is_rectified(net, layer))
    blank = respond(torch.full((1, 3, size, size), opponent.GREY))[0]
    shapes = torch.stack([_shape(size, radius, ring, shift) for radius in RADII for ring in (False, True)
                          for half in _SHIFTS for shift in half])  # fmt: skip
    signs = torch.tensor([1.0, -1.0]).repeat_interleave(2).repeat(2 * len(RADII))[:, None, None]
    gratings = torch.cat([*for_field(size, *GRATINGS).patterns()])
    along, strongest = [], []
    for axis in opponent.AXES:
        shown = opponent.coloured(torch.cat([signs * shapes, gratings]), opponent.direction(axis), CONTRAST)
        found = respond(shown) - blank
        along.append(found[: len(shapes)] * signs[:, :, 0].double())
        strongest.append(found.abs().amax(0))
    drives = torch.stack(along, dim=-1)
    drives = drives.unflatten(0, (len(RADII), 2, 2, 2)).mean(3).permute(3, 0, 1, 2, 4)
    responds = drives.abs().flatten(1).amax(1) > _SILENT * (1 + blank.abs())
    told = torch.full((len(drives),), torch.inf).double()
    return ColourTuning(drives.contiguous(), torch.stack(strongest, dim=1), told, responds)


def _shape(size: int, radius: float, ring: bool, shift: tuple[int, int]) -> Tensor:
    """Return 1 on a spot, or on the ring around it, and 0 elsewhere, `(size, size)`."""
    middle = (size - 1) / 2
    place = torch.arange(size, dtype=torch.float64)
    distance = torch.hypot(place[:, None] - middle - shift[0], place[None, :] - middle - shift[1])
    inner = max(radius * size, 1.0)
    return ((distance > inner) & (distance <= 2 * inner) if ring else distance <= inner).float()


def of_filters(weight: Tensor, *, preprocess: Whitening = NONE) -> ColourTuning:
    """Return the cone weights of the filters of a first convolution, from their weights.

    Parameters
    ----------
    weight : Tensor, shape (C, 3, F, F)
    preprocess : Whitening
        What the images go through just before the convolution.
    """
    drives = pixel_drives(weight, preprocess)  # (C, 3, F, F)
    places = []
    told = []
    for each in drives:
        space, _, _ = np.linalg.svd(each[1:].flatten(1).T.numpy(), full_matrices=False)
        profile = torch.from_numpy(space[:, 0].copy()).view(each.shape[1:])
        regions = torch.stack([profile.clamp(min=0), (-profile).clamp(min=0)]) > 0
        places.append(torch.einsum("pyx,ayx->pa", regions.double(), each))
        told.append(_told(profile))
    summed = torch.stack(places)[:, None, :, None].expand(-1, 1, 2, 2, 3)
    norms = weight.detach().cpu().double().flatten(1).norm(dim=1)
    strongest = drives.abs().sum((2, 3))  # by a picture of the signs of the weights
    return ColourTuning(summed.contiguous(), strongest, torch.stack(told), norms > VANISHED * norms.median())


def pixel_drives(weight: Tensor, preprocess: Whitening = NONE) -> Tensor:
    """Return what +1 times `CONTRAST` along each axis in one pixel changes, to first order, `(C, 3 axes, F, F)`."""
    grey = torch.full((1, 3, 1, 1), opponent.GREY, dtype=torch.float64)
    step = torch.eye(3, dtype=torch.float64)[:, :, None, None] * 1e-3
    to_input = ((preprocess(grey + step) - preprocess(grey)) / 1e-3).double()[:, :, 0, 0]  # rows: sRGB primaries
    light = opponent.to_linear(grey.flatten()[0])
    slope = (opponent.to_srgb(light + 1e-6) - opponent.to_srgb(light - 1e-6)) / 2e-6
    axes = torch.stack([CONTRAST * slope * opponent.direction(axis) for axis in opponent.AXES])
    return torch.einsum("ar,ri,ciyx->cayx", axes, to_input, weight.detach().cpu().double())


def _told(profile: Tensor) -> Tensor:
    """Correlate each pixel with the mean of its neighbours above, below, left and right."""
    kernel = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=profile.dtype)[None, None]
    around = F.conv2d(profile[None, None], kernel, padding=1) / F.conv2d(
        torch.ones_like(profile)[None, None], kernel, padding=1
    )
    both = torch.stack([profile.flatten(), around.flatten()])
    return torch.corrcoef(both)[0, 1].nan_to_num(0.0)
