"""Cone-opponent colours: luminance, L-M and S, the axes in which colour cells of the visual system are measured.

Following Derrington, Krauskopf and Lennie (1984): around a grey, the luminance axis raises all three cones in
proportion; the L-M axis trades L for M cones at constant luminance; the S axis changes S cones only. Pixels are taken
as sRGB; cones are those of Hunt, Pointer and Estevez, scaled so that the white of sRGB (D65) excites all three alike.
Luminance is Y of CIE 1931, to which these S cones do not add.
"""

import numpy as np
import torch
from skimage.color.colorconv import xyz_from_rgb
from torch import Tensor

from rfviz.errors import unknown

AXES = ("luminance", "L-M", "S")

LMS_FROM_XYZ = np.array([[0.4002, 0.7076, -0.0808], [-0.2263, 1.1653, 0.0457], [0.0, 0.0, 0.9182]])
"""Hunt-Pointer-Estevez, normalized to D65."""

GREY = 0.5
"""The background, in sRGB."""

_LMS = LMS_FROM_XYZ @ xyz_from_rgb
LMS_FROM_RGB = _LMS / _LMS.sum(1, keepdims=True)  # white is (1, 1, 1) to the last digit
"""Cone excitations of linear RGB."""


def to_linear(srgb: Tensor) -> Tensor:
    """Return the light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055).clamp(min=0) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Return the sRGB values of light in [0, 1]: the inverse of `to_linear`."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def direction(axis: str, sign: float = 1.0) -> Tensor:
    """Return a direction in linear RGB, `(3,)`, as long as the grey background can be moved along it both ways.

    Parameters
    ----------
    axis : {"luminance", "L-M", "S"}
    sign : float
        -1 turns it round.

    Raises
    ------
    RfvizError
        If there is no such axis.
    """
    if axis not in AXES:
        raise unknown("colour axis", axis, AXES)
    rgb_from_lms = np.linalg.inv(LMS_FROM_RGB)
    luminance = xyz_from_rgb[1] @ rgb_from_lms  # of the three cones
    cones = {
        "luminance": np.ones(3),
        "L-M": np.array([luminance[1], -luminance[0], 0.0]),
        "S": np.array([0.0, 0.0, 1.0]),
    }[axis]
    if axis == "S":
        cones = cones - np.array([luminance[2], luminance[2], 0]) / (luminance[0] + luminance[1])  # luminance stays
    rgb = torch.from_numpy(rgb_from_lms @ cones)
    background = float(to_linear(torch.tensor(GREY, dtype=torch.float64)))
    room = min(background, 1 - background)
    return sign * rgb * (room / rgb.abs().max())


def coloured(patterns: Tensor, axis: Tensor, contrast: float = 1.0) -> Tensor:
    """Modulate the grey background along a direction.

    Parameters
    ----------
    patterns : Tensor, shape (N, R, R)
        In [-1, 1].
    axis : Tensor, shape (3,)
        See `direction`.
    contrast : float
        Share of the way to the edge of what a screen can show.

    Returns
    -------
    Tensor, shape (N, 3, R, R)
        sRGB in [0, 1].
    """
    background = to_linear(torch.tensor(GREY, dtype=torch.float64))
    light = background + contrast * axis.double()[:, None, None] * patterns.double()[:, None]
    return to_srgb(light.clamp(0, 1)).float()


def opponent(rgb: Tensor) -> Tensor:
    """Return how pixels differ from the grey background along the three axes.

    Parameters
    ----------
    rgb : Tensor, shape (..., 3, H, W)
        sRGB in [0, 1].

    Returns
    -------
    Tensor of float64, shape (..., 3, H, W)
        Luminance, L-M and S; 1 is the edge of what a screen can show in that direction.
    """
    axes = torch.stack([direction(axis) for axis in AXES], dim=1)  # columns
    light = to_linear(rgb.double()) - to_linear(torch.tensor(GREY, dtype=torch.float64))
    return torch.einsum("ij,...jhw->...ihw", torch.linalg.inv(axes), light)
