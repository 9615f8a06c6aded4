"""Whether a picture has one colour in the centre and its opponent around it, more than chance would give.

A picture is taken apart into luminance, L-M and S, as it differs from the background: the mean colour of the images,
from which activation maximization starts and to which a mean over all stimuli comes close. It is *not* compared with
its own mean colour, from which centre and surround would differ in opposite directions by construction.

**Index.** The centre is a Gaussian mean (standard deviation R/8, nothing from R/4 on), the surround the mean over the
ring from R/4 to R/2, so they share no pixel. With the colours ``c`` and ``s`` of the two in the plane of L-M and S, the
index is ``max(0, -(c . s)) / max(norm(c), norm(s))**2``: 1 if they are equal and opposite, 0 if they are at a right
angle or less, or if one of them is the background. It does not depend on the contrast of the picture. A difference of
Gaussians without a mean has 0.1 to 0.2, as its surround is wide and faint.

**Chance.** Each picture is compared with `SURROGATES` of the same power spectrum but random phases; the same phase is
added to all three axes, which keeps how they go together (Theiler et al., 1992; Prichard and Theiler, 1994). Their mean
colour is that of the picture. What is compared is how strongly the weakest quarter of the ring opposes the centre,
``min(-(c . q))`` over the four quarters ``q``. For a picture whose phases mean nothing, such as noise, the test is
exact: it comes out opponent with a probability of `LEVEL` at most. Two other statistics were tried and given up:

- The index itself. Surrogates reach 0.8 by having little of either, so no difference of Gaussians would pass.
- ``-(c . s)`` for the whole ring. A spot in the centre of coarse noise passes in up to 29 of 100 cases, for the mean of
  what is around it has one sign or the other. With the weakest quarter it is up to 20, and mostly 7 or fewer.

Three more things keep the count honest:

- The background is rarely grey. Light and shade on a brownish background move along brown, which would look like
  opponent colours. So cones are taken as adapted to the background (von Kries): what multiplies its light is luminance.
- Greys that are *added* to a coloured background still leave some colour: up to 0.27 of the luminance on the brownish
  mean of the photographs here. A picture of less than `CHROMATIC` counts as achromatic.
- A faint ring of the opposite colour can be beyond chance and mean little: the index must be at least `LEAST`.

What it cannot tell: narrow stripes of which one lies in the centre can pass as well; oriented double-opponent cells
prefer such (Shapley and Hawken, 2011). Opponent are ends of an axis through the background: yellow and blue, red and
cyan; yellow within red is not. Surrogates are periodic, so a difference between opposite edges counts as structure. The
background must be the mean of the images that a mean stimulus was taken from: if it is not, all pictures have the same
error of colour, which can look like a surround.

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
"""Least index of a picture that counts as opponent: the fainter part is a tenth of the other or more, and opposite."""

CHROMATIC = 0.3
"""Least colour of a picture that counts as opponent, in parts of its luminance: the larger of centre and surround of
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
    centre, surround : Tensor of float64, shape (N, 3)
        As they differ from the background; see the top of `rfviz.kernels.tuning.centre_surround`.
    p : Tensor of float64, shape (N,)
        Share of surrogates that are at least as opposite in colour as the picture, which is counted in, in (0, 1].
    luminance_p : Tensor of float64, shape (N,)
        The same in luminance alone.
    distances : Tensor of float64, shape (B,)
        Mean distance of the pixels of each ring from the centre, px.
    profiles : Tensor of float64, shape (N, 3, B)
        Mean over each ring, as it differs from the background.
    """

    centre: Tensor
    surround: Tensor
    p: Tensor
    luminance_p: Tensor
    distances: Tensor
    profiles: Tensor

    @property
    def index(self) -> Tensor:
        """How opposite centre and surround are in colour, `(N,)` in [0, 1]."""
        return _opposition(self.centre[:, 1:], self.surround[:, 1:])

    @property
    def luminance_index(self) -> Tensor:
        """How opposite they are in luminance, `(N,)` in [0, 1]."""
        return _opposition(self.centre[:, :1], self.surround[:, :1])

    @property
    def chromatic(self) -> Tensor:
        """Whether a picture has colour worth the name, bool `(N,)`; see `CHROMATIC`."""
        colour, luminance = (_largest(self.centre[:, part], self.surround[:, part]) for part in (slice(1, 3), [0]))
        return colour >= CHROMATIC * luminance

    @property
    def colour_opponent(self) -> Tensor:
        """Whether centre and surround are opposite in colour, beyond chance, bool `(N,)`."""
        return (self.index >= LEAST) & (self.p <= LEVEL) & self.chromatic

    @property
    def luminance_opponent(self) -> Tensor:
        """Whether they are opposite in luminance, beyond chance, bool `(N,)`."""
        return (self.luminance_index >= LEAST) & (self.luminance_p <= LEVEL)


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
    weights = _weights(images.shape[-1])
    regions = torch.einsum("wyx,ncyx->nwc", weights, seen)
    by_chance = _of_surrogates(seen, weights, torch.Generator().manual_seed(seed))
    p, luminance_p = (
        (1 + (_against(by_chance[..., part]) >= _against(regions[..., part])[:, None]).sum(1)).double()
        / (1 + SURROGATES)
        for part in (slice(1, 3), slice(0, 1))
    )
    distances, profiles = _profiles(seen)

    def placed(values: Tensor) -> Tensor:
        all_of_them = torch.full((len(images), *values.shape[1:]), torch.nan, dtype=torch.float64)
        all_of_them[there] = values.double()
        return all_of_them

    return Opponency(
        centre=placed(regions[:, 0]), surround=placed(regions[:, 1:].mean(1)), p=placed(p),
        luminance_p=placed(luminance_p), distances=distances, profiles=placed(profiles),
    )  # fmt: skip


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


def _distance(side: int) -> Tensor:
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return torch.hypot(place[:, None], place[None, :])


def _weights(side: int) -> Tensor:
    """Return the weights of the pixels of the centre and of four quarters of the surround, `(5, R, R)`; sums are 1."""
    distance = _distance(side)
    centre = torch.exp(-(distance**2) / (2 * (side / 8) ** 2)) * (distance < side / 4)
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    quarter = (place[None, :] > 0) & (place[:, None] >= 0)  # with its turns it covers all but the very middle, once
    ring = (distance >= side / 4) & (distance <= side / 2)
    regions = [centre, *((ring & torch.rot90(quarter, turns)).double() for turns in range(4))]
    return torch.stack([each / each.sum() for each in regions])


def _profiles(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean distance `(B,)` and mean `(N, 3, B)` of rings of 1 px, as far as they are whole."""
    distance = _distance(seen.shape[-1]).flatten()
    rings = torch.stack([distance.floor() == ring for ring in range((seen.shape[-1] + 1) // 2)]).double()
    rings /= rings.sum(1, keepdim=True)
    return rings @ distance, seen.flatten(2) @ rings.T


def _largest(centre: Tensor, surround: Tensor) -> Tensor:
    return torch.maximum(centre.norm(dim=-1), surround.norm(dim=-1))


def _opposition(centre: Tensor, surround: Tensor) -> Tensor:
    """Return the index of vectors `(..., D)`, `(...)`."""
    largest = _largest(centre, surround)
    opposite = (-(centre * surround).sum(-1)).clamp(min=0) / largest**2
    return torch.where(largest <= _FLAT, 0.0, opposite)


def _against(regions: Tensor) -> Tensor:
    """Return how strongly the weakest quarter opposes the centre, at least 0: of `(..., 5, D)`, `(...)`."""
    weakest = -(regions[..., :1, :] * regions[..., 1:, :]).sum(-1).amax(-1)
    return torch.where(weakest > _FLAT**2, weakest, 0.0)


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
