"""Sums of the receptive-field patches of chosen neurons, by cross-correlation in the Fourier domain.

Along one axis, neuron ``y`` of a layer with field ``(size, stride, start)`` sees the rows ``stride * y + start + u`` of
the image, ``0 <= u < size``. Write ``start + u = stride * o + p`` with the *phase* ``0 <= p < stride``: the row is then
element ``y + o`` of the image's phase ``p``, every stride-th row of the image beginning with row p. So the sum of the
patches of all chosen neurons, m being 1 where a neuron is chosen and 0 elsewhere, is a cross-correlation ::

    sum over y of  m[y] * phase_p[y + o]

with few offsets o, the same for every phase, and the Fourier transform turns it into a product. Two things make that
fast: the transforms of the image's phases are shared by all channels and all layers of one stride, and the images of a
batch are summed by one matrix product per frequency. Transforms are short and of many things at once, so each is a
matrix product as well: with a matrix of cosines and sines, only from where there is something and only to where it is
needed. Nothing has to be complex, nor a power of two.

The circle on which the Fourier transform lives has L elements, enough that no offset that is asked for meets itself
from the other side; what lies outside the image is 0 and adds nothing.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from rfviz.kernels.responses.maps import AT_ONCE
from rfviz.nets.receptive_field import ReceptiveField

MIDDLE = 0.5
"""Taken off the images before they are summed: without the common part, less is lost to rounding."""

_LENGTHS = 8  # circles come in multiples of it, so that layers whose fields differ a little share transforms
_PRODUCT = 1 << 24  # elements of the product at a time


class Workspace:
    """Memory that is used again for every batch: fresh memory costs as much time as the arithmetic in it."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of this shape; it is overwritten when the same name is asked for again."""
        number = math.prod(shape)
        held = self._held.get(name)
        if held is None or len(held) < number or held.dtype != like.dtype or held.device != like.device:
            held = self._held[name] = like.new_empty(number)
        return held[:number].view(shape)


class Phases:
    """The phases of a batch of images, and their Fourier transforms, each computed when it is first asked for.

    Parameters
    ----------
    images : Tensor, shape (N, 3, H, W)
    workspace : Workspace, optional
        Only the phases that were made with it last are valid.
    """

    def __init__(self, images: Tensor, workspace: Workspace | None = None):
        double = images.dtype == torch.float64
        self.images = images if double else images.float()
        self.workspace = workspace or Workspace()
        self._transforms: dict[int, tuple[tuple[int, int], Tensor]] = {}  # by stride: circle, factors

    def transform(self, stride: int, rows: int, columns: int) -> Tensor:
        """Return the transforms on a circle of rows x columns as the right factors of a product.

        The shape is ``(frequencies, 2 N, 2 Q)`` with ``Q = 3 stride^2``: per image, the rows are those for the real
        and for the imaginary part of the left factor, and the columns give the real and the imaginary part.
        """
        circle, factors = self._transforms.get(stride, (None, None))
        if factors is None or circle != (rows, columns):
            factors = self._factors(stride, rows, columns)
            self._transforms[stride] = (rows, columns), factors
        return factors

    def _factors(self, stride: int, rows: int, columns: int) -> Tensor:
        n, colours, height, width = self.images.shape
        padded = F.pad(self.images - MIDDLE, (0, -width % stride, 0, -height % stride))
        split = padded.unflatten(3, (-1, stride)).unflatten(2, (-1, stride))  # N, 3, h, p, w, p
        phases = split.permute(0, 2, 4, 1, 3, 5).flatten(3)
        made = _transform(phases, rows, columns, -1, self.workspace, "images")
        real, imaginary = made.transpose(0, 1).unflatten(1, (n, 2)).unbind(2)
        q = colours * stride**2
        factors = self.workspace.empty(f"factors of stride {stride}", (len(real), n, 2, 2, q), phases)
        factors[:, :, 0, 0] = factors[:, :, 1, 1] = real
        factors[:, :, 0, 1] = imaginary
        torch.neg(imaginary, out=factors[:, :, 1, 0])
        return factors.view(len(real), 2 * n, 2 * q)


def mask(phases: Phases, chosen: Tensor) -> Tensor:
    """Return 1 where `chosen` (N, C, h, w), of any type, is > 0 and 0 elsewhere, as `summed_patches` takes it."""
    n, channels, h, w = chosen.shape
    made = phases.workspace.empty("mask", (n, h, w, channels), phases.images)
    for begin in range(0, n, AT_ONCE):  # first another type, then another order: each of them is fast
        part = slice(begin, begin + AT_ONCE)
        made[part] = chosen[part].sign().to(made.dtype).clamp_(min=0).permute(0, 2, 3, 1)
    return made


def summed_patches(phases: Phases, chosen: Tensor, field: ReceptiveField) -> tuple[Tensor, int, int]:
    """Sum the patches of the chosen neurons of every channel over a batch of images.

    Parameters
    ----------
    phases : Phases
        Of the images (N, 3, H, W).
    chosen : Tensor, shape (N, h, w, C)
        1 for the neurons of the layer that count, 0 for the others; in the type of the images, such as `mask` returns.
    field : ReceptiveField
        Of the layer.

    Returns
    -------
    sums : Tensor, shape (C, 3, r, c)
        Sums of patches of ``image - MIDDLE``, in which pixels outside the image are 0; only the part of the field in
        which some neuron sees a pixel of the image.
    top, left : int
        Row and column of the field in which this part begins.
    """
    images, space = phases.images, phases.workspace
    h, w, channels = chosen.shape[1:]
    stride = field.stride
    vertical, horizontal = _Axis.of(field, h, images.shape[2]), _Axis.of(field, w, images.shape[3])
    window = vertical.window, horizontal.window
    sums = images.new_zeros(channels, images.shape[1], *(end - begin for begin, end in window))
    corner = window[0][0], window[1][0]
    used = chosen.sum(0).amax((0, 1)).nonzero().flatten()  # silent channels have empty sums
    if not sums.numel() or not len(used):
        return sums, *corner
    if 4 * len(used) > 3 * channels:  # to leave out a few would cost more than it saves
        used = torch.arange(channels, device=used.device)
    else:
        chosen = chosen[..., used]
    rows, columns = vertical.circle, horizontal.circle
    right = phases.transform(stride, rows, columns)
    left = _transform(chosen, rows, columns, +1, space, "neurons").permute(1, 2, 0)  # frequencies, channels, 2 N
    frequencies, _, q2 = right.shape
    for part in torch.arange(len(used)).split(max(1, _PRODUCT // (frequencies * q2))):
        factor = left[:, part[0] : part[-1] + 1]
        product = space.empty("product", (frequencies, len(part), q2), images)
        torch.bmm(factor, right, out=product)
        back = _back(product, vertical, horizontal, space)  # offsets, offsets, channels * 3 * phases
        pixels = back.unflatten(2, (len(part), images.shape[1], stride, stride)).permute(2, 3, 0, 4, 1, 5)
        whole = pixels.flatten(4).flatten(2, 3)
        (top, bottom), (start, end) = (axis.inside(stride) for axis in (vertical, horizontal))
        sums[used[part].to(sums.device)] = whole[:, :, top:bottom, start:end]
    return sums, *corner


class _Axis:
    """What of a field can meet an image along one axis: the offsets, the circle, the window.

    Parameters
    ----------
    field : ReceptiveField
    first, last : int
        Offsets o at which some neuron of the map meets an element of a phase.
    circle : int
        L.
    """

    def __init__(self, field: ReceptiveField, first: int, last: int, circle: int):
        self.field, self.first, self.last, self.circle = field, first, last, circle

    @classmethod
    def of(cls, field: ReceptiveField, neurons: int, pixels: int) -> "_Axis":
        elements = -(-pixels // field.stride)
        first = max(field.start // field.stride, 1 - neurons)
        last = min((field.start + field.size - 1) // field.stride, elements - 1)
        # Offset o would meet o + L, whose elements end at `elements`, and o - L, which begin at -neurons.
        least = max(elements - first, neurons + last, neurons, elements)
        return cls(field, first, last, -(-least // _LENGTHS) * _LENGTHS)

    @property
    def window(self) -> tuple[int, int]:
        """Rows of the field that the offsets cover, half open; where none do, it is empty."""
        begin = self.field.stride * self.first - self.field.start
        end = self.field.stride * (self.last + 1) - self.field.start
        begin = min(max(begin, 0), self.field.size)
        return begin, max(begin, min(end, self.field.size))

    def inside(self, stride: int) -> tuple[int, int]:
        """Where the window lies in the rows that all phases of all offsets make."""
        shift = self.field.start - stride * self.first
        return self.window[0] + shift, self.window[1] + shift


def _transform(x: Tensor, rows: int, columns: int, sign: int, space: Workspace, name: str) -> Tensor:
    """Transform maps `(N, h, w, c)`: the sum over (y, x) of map * exp(sign * i * angle), `(2 N, frequencies, c)`.

    Real and imaginary part alternate along the first axis. Vertical frequencies are 0, 1, ..., rows / 2 and then -1,
    -2, ...; of the horizontal ones, the half from 0 to columns / 2 is enough.
    """
    n, h, w, c = x.shape
    tall, wide = rows // 2 + 1, columns // 2 + 1
    along_x, along_y = (_waves(length, circle, x.dtype, x.device) for length, circle in ((w, columns), (h, rows)))
    out = space.empty(f"{name} transformed", (n, 2, rows, wide, c), x)
    for begin in range(0, n, AT_ONCE):
        part = x[begin : begin + AT_ONCE]
        m = len(part)
        between = space.empty("between", (m * h, 2 * wide, c), x)
        both = space.empty("both", (m, 2 * tall, 2 * wide * c), x)
        torch.bmm(along_x.expand(m * h, -1, -1), part.reshape(m * h, w, c), out=between)
        torch.bmm(along_y.expand(m, -1, -1), between.view(m, h, 2 * wide * c), out=both)
        # cosine or sine along y, then along x; exp(i (a + b)) = cos a cos b - sin a sin b + i (...)
        (cc, cs), (sc, ss) = (each.unbind(2) for each in both.view(m, 2, tall, 2, wide, c).unbind(1))
        real, imaginary = out[begin : begin + m].unbind(1)
        torch.sub(cc, ss, out=real[:, :tall])
        torch.add(cs, sc, out=imaginary[:, :tall])
        rest = slice(1, rows - tall + 1)
        torch.add(cc[:, rest], ss[:, rest], out=real[:, tall:])
        torch.sub(cs[:, rest], sc[:, rest], out=imaginary[:, tall:])
        if sign < 0:
            out[begin : begin + m, 1].neg_()
    return out.view(2 * n, rows * wide, c)


def _back(product: Tensor, vertical: _Axis, horizontal: _Axis, space: Workspace) -> Tensor:
    """Transform `(frequencies, channels, 2 Q)` back, to the offsets asked for: `(rows, columns, channels * Q)`."""
    _, channels, q2 = product.shape
    rows, half = vertical.circle, horizontal.circle // 2 + 1
    wave = _waves_back(vertical.first, vertical.last, rows, product.dtype, product.device)
    between = space.empty("back", (len(wave), half * channels * q2), product)
    torch.mm(wave, product.view(rows, -1), out=between)
    cosine, sine = between.view(2, -1, half, channels, 2, q2 // 2)
    real = (cosine[..., 0, :] - sine[..., 1, :]).flatten(2)
    imaginary = (sine[..., 0, :] + cosine[..., 1, :]).flatten(2)
    wave = _waves_back(horizontal.first, horizontal.last, horizontal.circle, product.dtype, product.device)
    cosine_x, sine_x = (wave[:, :half] * _twice(horizontal.circle).to(wave)).chunk(2)
    return (cosine_x @ real).sub_(sine_x @ imaginary)


def _angles(frequencies: Tensor, positions: range, circle: int) -> Tensor:
    # Whole turns are taken off while the numbers are still integers.
    turns = frequencies[:, None] * torch.arange(positions.start, positions.stop) % circle
    return 2 * math.pi / circle * turns.double()


@lru_cache(maxsize=256)
def _waves(length: int, circle: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return cosines over sines `(2 * (circle / 2 + 1), length)`."""
    angles = _angles(torch.arange(circle // 2 + 1), range(length), circle)
    return torch.cat([angles.cos(), angles.sin()]).to(device, dtype)


@lru_cache(maxsize=256)
def _waves_back(first: int, last: int, circle: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return cosines over sines `(2 * offsets, circle)` of the inverse transform, in the order of `_transform`."""
    half = circle // 2 + 1
    frequencies = torch.cat([torch.arange(half), -torch.arange(1, circle - half + 1)])
    angles = _angles(frequencies, range(first, last + 1), circle).T
    return (torch.cat([angles.cos(), angles.sin()]) / circle).to(device, dtype)


def _twice(circle: int) -> Tensor:
    """Return how often each of the half frequencies occurs among all of a circle: the first and the middle once."""
    weights = torch.full((circle // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1
    if circle % 2 == 0:
        weights[-1] = 1
    return weights
