"""Whether a picture has one hue in the centre and another around it, or the opponent one, more than chance would give.

A picture is taken apart into luminance, L-M and S, as it differs from the background: the mean colour of the images,
from which activation maximization starts and to which a mean over all stimuli comes close. It is *not* compared with
its own mean colour, from which centre and surround would differ in opposite directions by construction.

**Two measures.** The centre is a Gaussian mean (standard deviation w, nothing from 2 w on), the surround the mean over
the ring from 2 w to 4 w, so they share no pixel; of several widths w, `SCALES`, that counts at which a measure is
largest. With the colours ``c`` and ``s`` of the two in the plane of L-M and S,

- they are *opponent* as far as the index ``max(0, -(c . s)) / max(norm(c), norm(s))**2`` goes: 1 if they are equal and
  opposite, 0 if they are at a right angle or less, or if one of them is the background. A difference of Gaussians
  without a mean has 0.1 to 0.2, as its surround is wide and faint;
- their *hues differ* by the angle between them: yellow within red does, and is not opponent.

Neither depends on the contrast of the picture.

**Chance.** Each picture is compared with `SURROGATES` of the same power spectrum but random phases; the same phase is
added to all three axes, which keeps how they go together (Theiler et al., 1992; Prichard and Theiler, 1994). Their mean
colour is that of the picture. What is compared is how strongly the weakest quarter ``q`` of the ring opposes the
centre, ``min(-(c . q))`` over the four quarters, or differs from it in hue, ``min(norm(c) norm(q) - c . q)``, which is
0 where one of them has no colour; of a surrogate, too, the largest over the widths counts. For a picture whose phases
mean nothing, such as noise, each test is exact: it is passed with a probability of `LEVEL` at most. Two other
statistics for opponency were tried and given up:

- The index itself. Surrogates reach 0.8 by having little of either, so no difference of Gaussians would pass.
- ``-(c . s)`` for the whole ring. A spot in the centre of coarse noise passes in up to 29 of 100 cases, for the mean of
  what is around it has one sign or the other. With the weakest quarter it is up to 20, and mostly 7 or fewer.

Three more things keep the count honest:

- The background is rarely grey. Light and shade on a brownish background move along brown, which would look like
  opponent colours. So cones are taken as adapted to the background (von Kries): what multiplies its light is luminance.
- Greys that are *added* to a coloured background still leave some colour: up to 0.27 of the luminance on the brownish
  mean of the photographs here. A picture of less than `CHROMATIC` counts as achromatic.
- A faint ring of another colour can be beyond chance and mean little: the index must be at least `LEAST`, or the hues
  must be `ANGLE` apart and the fainter of the two colours at least `LEAST` of the other.

What it cannot tell: narrow stripes of which one lies in the centre can pass as well; oriented double-opponent cells
prefer such (Shapley and Hawken, 2011). Surrogates are periodic, so a difference between opposite edges counts as
structure. The background must be the mean of the images that a mean stimulus was taken from: if it is not, all pictures
have the same error of colour, which can look like a surround.

References: J. Theiler, S. Eubank, A. Longtin, B. Galdrikian and J. D. Farmer (1992), Physica D 58, 77-94; D. Prichard
and J. Theiler (1994), Physical Review Letters 73, 951-954.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rfviz.errors import RfvizError
from rfviz.kernels.tuning import opponent

SURROGATES = 200
"""Of every picture."""

LEVEL = 0.05
"""Share of its surrogates that may be as opposite: the share of noise pictures that pass, at most."""

LEAST = 0.1
"""Least part of the other that the fainter of centre and surround is in a picture that counts."""

ANGLE = 30.0
"""Degrees by which the hues of centre and surround differ at least, in a picture that counts."""

SCALES = (1 / 16, 1 / 11, 1 / 8)
"""Widths of the centre, in sides of the picture."""

CHROMATIC = 0.3
"""Least colour of a picture that counts, in parts of its luminance: the larger of centre and surround of
each, in units of the largest contrast of each axis."""

SMALLEST = 5
"""Side of the smallest picture, px, that has a centre and a surround."""

_FLAT = 1e-6  # what is closer to the background is rounding: far less than a step of an 8-bit screen
_DARKEST = 1e-3  # light of the darkest background; a black one would make every contrast infinite


@dataclass(frozen=True)
class Opponency:
    """Centre and surround of N pictures, in units of the largest contrast of luminance, L-M and S.

    Everything about a picture that is not there is NaN.

    Parameters
    ----------
    opposed, differing : Tensor of float64, shape (N, 2, 3)
        Centre and surround, as they differ from the background, at the width at which they are most opposite, and at
        that at which their hues differ most; see the top of `rfviz.kernels.tuning.centre_surround`.
    p, hue_p : Tensor of float64, shape (N,)
        Share of surrogates that are at least as opposite in colour as the picture, or differ as much in hue; the
        picture is counted in, in (0, 1].
    """

    opposed: Tensor
    differing: Tensor
    p: Tensor
    hue_p: Tensor

    @property
    def index(self) -> Tensor:
        """How opposite centre and surround are in colour, `(N,)` in [0, 1]."""
        centre, surround = self.opposed[..., 1:].unbind(1)
        largest = _largest(self.opposed[..., 1:])
        return torch.where(largest <= _FLAT, 0.0, (-(centre * surround).sum(-1)).clamp(min=0) / largest**2)

    @property
    def angle(self) -> Tensor:
        """Degrees between the hues of centre and surround, `(N,)` in [0, 180]; NaN where one has no colour."""
        centre, surround = self.differing[..., 1:].unbind(1)
        sizes = centre.norm(dim=-1) * surround.norm(dim=-1)
        cosine = ((centre * surround).sum(-1) / sizes).clamp(-1, 1)
        return torch.where(sizes > _FLAT**2, torch.rad2deg(cosine.acos()), torch.nan)

    @property
    def chromatic(self) -> Tensor:
        """Whether a picture has colour worth the name, bool `(N,)`; see `CHROMATIC`."""
        return _chromatic(self.opposed)

    @property
    def colour_opponent(self) -> Tensor:
        """Whether centre and surround are opposite in colour, beyond chance, bool `(N,)`."""
        return (self.index >= LEAST) & (self.p <= LEVEL) & self.chromatic

    @property
    def hue_differs(self) -> Tensor:
        """Whether centre and surround differ in hue, beyond chance, bool `(N,)`."""
        colour = self.differing[..., 1:].norm(dim=-1)
        fainter = colour.amin(1) >= LEAST * colour.amax(1)
        return (self.angle >= ANGLE) & fainter & (self.hue_p <= LEVEL) & _chromatic(self.differing)


def measure(images: Tensor, background: Tensor, there: Tensor | None = None, seed: int = 0) -> Opponency:
    """Measure centre and surround of pictures, and compare them with surrogates.

    Parameters
    ----------
    images : Tensor, shape (N, 3, R, R)
        sRGB in [0, 1].
    background : Tensor, shape (3,)
        sRGB in [0, 1].
    there : Tensor of bool, shape (N,), optional
        Which pictures there are: a channel that never fires has no mean stimulus. All by default.
    seed : int
        Of the surrogates.

    Raises
    ------
    RfvizError
        If shapes do not fit, pictures are smaller than `SMALLEST`, or a value is not finite.
    """
    there = torch.ones(len(images), dtype=torch.bool) if there is None else there
    _check(images, background, there)
    seen = deviations(images[there], background)
    weights = torch.stack([_weights(images.shape[-1], scale) for scale in SCALES])
    regions = torch.einsum("kwyx,ncyx->nkwc", weights, seen)
    by_chance = _of_surrogates(seen, weights.flatten(0, 1), torch.Generator().manual_seed(seed))
    by_chance = by_chance.unflatten(2, weights.shape[:2])

    def placed(values: Tensor) -> Tensor:
        all_of_them = torch.full((len(images), *values.shape[1:]), torch.nan, dtype=torch.float64)
        all_of_them[there] = values.double()
        return all_of_them

    both, p = [], []
    for statistic in (_against, _apart):
        found, chance = statistic(regions[..., 1:]), statistic(by_chance[..., 1:])
        best = regions[torch.arange(len(regions)), found.argmax(1)]
        both.append(placed(torch.stack([best[:, 0], best[:, 1:].mean(1)], dim=1)))
        as_much = (chance.amax(2) >= found.amax(1, keepdim=True)).sum(1)
        p.append(placed((1 + as_much).double() / (1 + SURROGATES)))
    return Opponency(*both, *p)


def deviations(images: Tensor, background: Tensor) -> Tensor:
    """Return how pixels differ from the background for cones that are adapted to it.

    The contrast of each cone, ``(cone - background) / background``, is carried over to the grey of
    `rfviz.kernels.tuning.opponent` and expressed along its axes: on a background of that grey, this is its `opponent`.

    Parameters
    ----------
    images : Tensor, shape (N, 3, R, R)
        sRGB in [0, 1].
    background : Tensor, shape (3,)
        sRGB in [0, 1].

    Returns
    -------
    Tensor of float64, shape (N, 3, R, R)
        Luminance, L-M and S.
    """
    to_cones = torch.from_numpy(opponent.LMS_FROM_RGB)
    grey = to_cones @ opponent.to_linear(torch.full((3,), opponent.GREY, dtype=torch.float64))
    axes = to_cones @ torch.stack([opponent.direction(axis) for axis in opponent.AXES], dim=1)
    light = opponent.to_linear(background.double())
    adapted = grey / (to_cones @ light).clamp(min=_DARKEST)
    matrix = torch.linalg.inv(axes) @ torch.diag(adapted) @ to_cones
    return torch.einsum("ij,njyx->niyx", matrix, opponent.to_linear(images.double()) - light[:, None, None])


def _check(images: Tensor, background: Tensor, there: Tensor) -> None:
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[3] < SMALLEST:
        raise RfvizError(f"pictures have the shape {shape}: it must be (N, 3, R, R), with R from {SMALLEST} px up.")
    if tuple(background.shape) != (3,) or tuple(there.shape) != shape[:1]:
        raise RfvizError(
            f"background and there have the shapes {tuple(background.shape)} and {tuple(there.shape)}: "
            f"they must be (3,) and ({shape[0]},)."
        )
    wrong = (there & ~images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    if wrong or not background.isfinite().all():
        what = f"picture {wrong[0]}" if wrong else "the background"
        raise RfvizError(f"{what} has a value that is not finite: give sRGB in [0, 1], or leave the picture out.")


def _weights(side: int, scale: float) -> Tensor:
    """Return the weights of the pixels of the centre and of four quarters of the surround, `(5, R, R)`; sums are 1."""
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    distance, width = torch.hypot(place[:, None], place[None, :]), max(scale * side, 0.5)
    centre = torch.exp(-(distance**2) / (2 * width**2)) * (distance < 2 * width)
    quarter = (place[None, :] > 0) & (place[:, None] >= 0)  # with its turns it covers all but the very middle, once
    ring = (distance >= 2 * width) & (distance <= 4 * width)
    regions = [centre, *((ring & torch.rot90(quarter, turns)).double() for turns in range(4))]
    return torch.stack([each / each.sum() for each in regions])


def _largest(both: Tensor) -> Tensor:
    """Return the larger size of centre and surround `(N, 2, D)`, `(N,)`."""
    return both.norm(dim=-1).amax(1)


def _chromatic(both: Tensor) -> Tensor:
    """Tell whether centre or surround `(N, 2, 3)` has colour worth the name, bool `(N,)`."""
    return _largest(both[..., 1:]) >= CHROMATIC * _largest(both[..., :1])


def _against(regions: Tensor) -> Tensor:
    """Return how strongly the weakest quarter opposes the centre, at least 0: of `(..., 5, D)`, `(...)`."""
    weakest = -(regions[..., :1, :] * regions[..., 1:, :]).sum(-1).amax(-1)
    return torch.where(weakest > _FLAT**2, weakest, 0.0)


def _apart(regions: Tensor) -> Tensor:
    """Return how much the quarter that does so least differs from the centre in hue: of `(..., 5, D)`, `(...)`."""
    centre, quarters = regions[..., :1, :], regions[..., 1:, :]
    least = (centre.norm(dim=-1) * quarters.norm(dim=-1) - (centre * quarters).sum(-1)).amin(-1)
    return torch.where(least > _FLAT**2, least, 0.0)


def _frequencies(side: int) -> tuple[Tensor, Tensor]:
    """Return one of each pair of frequencies that a real picture has twice, and how many it stands for.

    The frequency 0, the mean, is not among them. A frequency that is its own partner, as there are in pictures of even
    size, stands for itself: 1 instead of 2.
    """
    number = torch.arange(side * side)
    partner = (-(number // side) % side) * side + -number % side
    chosen = number[(number <= partner) & (number > 0)]
    return chosen, 1 + (chosen != partner[chosen]).double()


def _phases(side: int, generator: torch.Generator) -> Tensor:
    """Return the phases of all surrogates of a picture at `_frequencies`, radians, `(SURROGATES, H)`."""
    _, share = _frequencies(side)
    phases = 2 * math.pi * torch.rand(SURROGATES, len(share), generator=generator, dtype=torch.float64)
    return torch.where(share == 1, math.pi * (phases > math.pi).double(), phases)  # its own partner is real


def _of_surrogates(seen: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return centre and quarters of every surrogate of every picture, `(N, SURROGATES, 5, 3)`.

    No surrogate is ever drawn: a weighted mean of one is a scalar product of spectra, by Parseval's theorem.
    """
    side = seen.shape[-1]
    if not len(seen):  # no Fourier transform takes nothing
        return seen.new_empty(0, SURROGATES, len(weights), 3)
    chosen, share = _frequencies(side)
    spectra = torch.fft.fft2(seen).flatten(2)
    of_weights = torch.fft.fft2(weights).flatten(1).conj() / side**2
    parts = spectra[:, None, :, chosen] * of_weights[:, None, chosen] * share  # (N, 5, 3, H)
    mean = (spectra[:, None, :, 0] * of_weights[:, None, 0]).real
    found = seen.new_empty(len(seen), SURROGATES, len(weights), 3)
    for picture, part in enumerate(parts.flatten(1, 2)):  # one by one: all phases at once would take much memory
        phases = _phases(side, generator)
        turned = phases.cos() @ part.real.T - phases.sin() @ part.imag.T
        found[picture] = mean[picture] + turned.unflatten(1, (len(weights), 3))
    return found
