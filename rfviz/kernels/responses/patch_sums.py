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
from functools import cached_property, lru_cache
from threading import get_ident

import torch
from torch import Tensor
from torch.nn import functional as F

from rfviz.kernels.responses.cores import ALONE, Cores
from rfviz.nets.receptive_field import ReceptiveField

MIDDLE = 0.5
"""Taken off the images before they are summed: without the common part, less is lost to rounding."""

_LENGTHS = 8  # circles come in multiples of it, so that layers whose fields differ a little share transforms
_PRODUCT = 1 << 24  # elements of the product at a time
_ROWS = 4  # of the maps of all images, that are counted at a time


class Workspace:
    """Memory that is used again for every batch: fresh memory costs as much time as the arithmetic in it.

    Every thread has its own.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of this shape; it is overwritten when the same name is asked for again."""
        number, key = math.prod(shape), (name, get_ident())
        held = self._held.get(key)
        if held is None or len(held) < number or held.dtype != like.dtype or held.device != like.device:
            held = self._held[key] = like.new_empty(number)
        return held[:number].view(shape)


class Phases:
    """The phases of a batch of images, and their Fourier transforms, each computed when it is first asked for.

    Parameters
    ----------
    images : Tensor, shape (N, 3, H, W)
    workspace : Workspace, optional
        Only the phases that were made with it last are valid.
    cores : Cores
        Who transforms and sums them.
    """

    def __init__(self, images: Tensor, workspace: Workspace | None = None, cores: Cores = ALONE):
        double = images.dtype == torch.float64
        self.images = images if double else images.float()
        self.workspace = workspace or Workspace()
        self.cores = cores
        self._transforms: dict[int, tuple[tuple[int, int], Tensor]] = {}  # by stride: circle, transforms

    @cached_property
    def total(self) -> Tensor:
        """Sum of ``image - MIDDLE`` over the images, float64 on the CPU."""
        return (self.images.sum(0).double() - MIDDLE * len(self.images)).cpu()

    def transform(self, stride: int, rows: int, columns: int) -> Tensor:
        """Return the transforms of the phases, of which there are Q = 3 stride^2, on a circle of rows x columns.

        As `_transform` has them, ``(columns / 2 + 1, rows, 2, N, Q)``.
        """
        circle, made = self._transforms.get(stride, (None, None))
        if made is not None and circle == (rows, columns):
            return made
        n, colours, height, width = self.images.shape
        padded = F.pad(self.images - MIDDLE, (0, -width % stride, 0, -height % stride))
        split = padded.unflatten(3, (-1, stride)).unflatten(2, (-1, stride))  # N, 3, h, p, w, p
        split = split.permute(0, 2, 4, 1, 3, 5)
        shape = columns // 2 + 1, rows, 2, n, colours * stride**2
        made = self.workspace.empty(f"phases of stride {stride}", shape, self.images)
        self.cores.each(
            lambda part: _transform(split[part].flatten(3), made[:, :, :, part], (rows, columns), self.workspace),
            self.parts(n),
        )
        self._transforms[stride] = (rows, columns), made
        return made

    def parts(self, number: int, size: int = 1) -> list[slice]:
        """Divide work: for a core a little at a time, that stays in its cache; for a GPU all at once."""
        size = number if self.images.is_cuda else size
        return [slice(begin, begin + size) for begin in range(0, number, size)]


def positive(chosen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 where `chosen`, of any type, is > 0 and 0 elsewhere."""
    return chosen.sign().to(dtype).clamp_(min=0)


def summed_patches(phases: Phases, chosen: Tensor, field: ReceptiveField) -> tuple[Tensor, Tensor, int, int]:
    """Sum the patches of the chosen neurons of every channel over a batch of images.

    Parameters
    ----------
    phases : Phases
        Of the images (N, 3, H, W).
    chosen : Tensor, shape (N, C, h, w)
        Of any type: neurons of the layer where it is > 0 count.
    field : ReceptiveField
        Of the layer.

    Returns
    -------
    sums : Tensor, shape (C, 3, r, c)
        Sums of patches of ``image - MIDDLE``, in which pixels outside the image are 0; only the part of the field in
        which some neuron sees a pixel of the image.
    neurons : Tensor of int64, shape (C, h, w)
        In how many images each neuron is chosen.
    top, left : int
        Row and column of the field in which this part begins.
    """
    images, space = phases.images, phases.workspace
    n, channels, h, w = chosen.shape
    counts = phases.cores.each(lambda part: positive(chosen[:, :, part], images.dtype).sum(0), phases.parts(h, _ROWS))
    neurons = torch.cat(counts, 1)
    vertical, horizontal = _Axis.of(field, h, images.shape[2]), _Axis.of(field, w, images.shape[3])
    window = vertical.window, horizontal.window
    sums = images.new_zeros(channels, images.shape[1], *(end - begin for begin, end in window))
    corner = window[0][0], window[1][0]
    used = neurons.amax((1, 2)).nonzero().flatten()  # silent channels have empty sums
    if not sums.numel() or not len(used):
        return sums, neurons.long(), *corner
    if 4 * len(used) > 3 * channels:  # to leave out a few would cost more than it saves
        used = torch.arange(channels, device=used.device)
    else:
        chosen = chosen[:, used]
    rows, columns = vertical.circle, horizontal.circle
    right = phases.transform(stride := field.stride, rows, columns)
    left = space.empty("neurons", (*right.shape[:3], n, len(used)), images)

    def transform(part: slice) -> None:
        maps = positive(chosen[part], images.dtype).permute(0, 2, 3, 1)
        _transform(maps, left[:, :, :, part], (rows, columns), space)

    phases.cores.each(transform, phases.parts(n))
    for part in torch.arange(len(used)).split(max(1, _PRODUCT // right[:, :, :, 0].numel())):
        factor = left[..., part[0] : part[-1] + 1]
        whole = _product_back(phases, factor, right, vertical, horizontal)  # offsets, offsets, channels * 3 * phases
        pixels = whole.unflatten(2, (len(part), images.shape[1], stride, stride)).permute(2, 3, 1, 4, 0, 5)
        pixels = pixels.flatten(4).flatten(2, 3)
        (top, bottom), (start, end) = (axis.inside(stride) for axis in (vertical, horizontal))
        sums[used[part.to(used.device)]] = pixels[:, :, top:bottom, start:end]
    return sums, neurons.long(), *corner


def summed_grid(total: Tensor, rows: slice, columns: slice, field: ReceptiveField) -> Tensor:
    """Sum the patches of all neurons in some rows and columns of a map.

    Which pixels they see is then told by rows and by columns: a product with a matrix of zeros and ones for each.

    Parameters
    ----------
    total : Tensor of float64, shape (3, H, W)
        A sum of images, in which what is outside of them is 0.
    rows, columns : slice
    field : ReceptiveField
        Of the layer, R px wide.

    Returns
    -------
    Tensor, shape (3, R, R)
    """
    down, across = (
        _seen(part.start, part.stop, field, pixels)
        for part, pixels in zip((rows, columns), total.shape[1:], strict=True)
    )
    return down @ total @ across.T


@lru_cache(maxsize=256)
def _seen(begin: int, end: int, field: ReceptiveField, pixels: int) -> Tensor:
    """Return `(R, pixels)` of float64: 1 where one of the neurons sees the pixel in that row of its field."""
    neuron, row = torch.meshgrid(torch.arange(begin, end), torch.arange(field.size), indexing="ij")
    pixel = field.start + field.stride * neuron + row
    there = (pixel >= 0) & (pixel < pixels)
    seen = torch.zeros(field.size, pixels, dtype=torch.float64)
    seen[row[there], pixel[there]] = 1
    return seen


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


def _transform(x: Tensor, out: Tensor, circle: tuple[int, int], space: Workspace) -> None:
    """Transform maps `(N, h, w, c)` into `out`: the sums over (y, x) of map * cos(angle) and of map * sin(angle).

    They are written to `out` of shape ``(columns / 2 + 1, rows, 2, N, c)``. Vertical frequencies are 0, 1, ..., rows /
    2 and then -1, -2, ...; of the horizontal ones, the half from 0 to columns / 2 is enough.
    """
    (n, h, w, c), (rows, columns) = x.shape, circle
    tall, wide = rows // 2 + 1, columns // 2 + 1
    along_x, along_y = (_waves(length, around, x.dtype, x.device) for length, around in ((w, columns), (h, rows)))
    between = space.empty("between", (n * h, 2 * wide, c), x)
    both = space.empty("both", (n, 2 * tall, 2 * wide * c), x)
    torch.bmm(along_x.expand(n * h, -1, -1), x.flatten(0, 1), out=between)
    torch.bmm(along_y.expand(n, -1, -1), between.view(n, h, 2 * wide * c), out=both)
    # cosine or sine along y, then along x; exp(i (a + b)) = cos a cos b - sin a sin b + i (...)
    (cc, cs), (sc, ss) = (each.unbind() for each in both.view(n, 2, tall, 2, wide, c).permute(1, 3, 4, 2, 0, 5))
    cosine, sine = out.unbind(2)
    torch.sub(cc, ss, out=cosine[:, :tall])
    torch.add(cs, sc, out=sine[:, :tall])
    rest = slice(1, rows - tall + 1)
    torch.add(cc[:, rest], ss[:, rest], out=cosine[:, tall:])
    torch.sub(cs[:, rest], sc[:, rest], out=sine[:, tall:])


def _product_back(phases: Phases, left: Tensor, right: Tensor, vertical: _Axis, horizontal: _Axis) -> Tensor:
    """Multiply transforms of neurons with conjugate transforms of phases, sum over the images, and transform back.

    Returns the sums at the offsets that are asked for, `(columns, rows, channels * Q)`.
    """
    space, (wide, rows, _, _, channels), q = phases.workspace, left.shape, right.shape[4]
    wave = _waves_back(vertical.first, vertical.last, rows, right.dtype, right.device)
    offsets = len(wave) // 2
    columns = space.empty("columns", (wide, 2, offsets, channels * q), right)

    def multiply(part: slice) -> None:
        (a, b), (c, d) = (each[part].flatten(0, 1).unbind(1) for each in (left.transpose(3, 4), right))
        m = len(left[part])
        product = space.empty("product", (2, m * rows, channels, q), right)
        between = space.empty("back", (2, m, 2 * offsets, channels * q), right)
        real, imaginary = product  # (a + ib) (c - id)
        torch.baddbmm(torch.bmm(a, c, out=real), b, d, out=real)
        torch.baddbmm(torch.bmm(b, c, out=imaginary), a, d, alpha=-1, out=imaginary)
        torch.bmm(wave.expand(2 * m, -1, -1), product.view(2 * m, rows, -1), out=between.view(2 * m, 2 * offsets, -1))
        (cosine_real, sine_real), (cosine_imaginary, sine_imaginary) = (each.chunk(2, 1) for each in between)
        torch.sub(cosine_real, sine_imaginary, out=columns[part, 0])
        torch.add(sine_real, cosine_imaginary, out=columns[part, 1])

    phases.cores.each(multiply, phases.parts(wide))
    wave = _waves_back(horizontal.first, horizontal.last, horizontal.circle, right.dtype, right.device)[:, :wide]
    weights = torch.full((wide,), 2.0)
    weights[[0, -1]] = 1  # of the half frequencies, the first and the middle occur once on the circle
    cosine, sine = (wave * weights.to(wave)).chunk(2)
    wave = torch.stack([cosine, -sine], 2).flatten(1)
    return (wave @ columns.view(2 * wide, -1)).view(len(wave), offsets, -1)


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
