"""Gabor fits of the first convolution's filters: a plane wave under an elliptic Gaussian.

A filter has three colours and a Gabor one, so what is fitted is the filter's strongest spatial profile: the first
left singular vector of its pixels by colours, which leaves out the least.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from torch import Tensor

ANGLES, FREQUENCIES, WIDTHS = 12, (0.07, 0.14, 0.21, 0.28, 0.35), (0.15, 0.3)
"""Grid from which the search begins: orientations over half a turn, cycles/px, and widths as shares of the filter."""

STARTS = 4
"""Points of the grid, those that fit best, from which it goes on."""


@dataclass(frozen=True)
class Gabor:
    """The Gabor that fits a filter best.

    Parameters
    ----------
    orientation : float
        Of the bars, degrees in [0, 180) counterclockwise from the horizontal.
    frequency : float
        Cycles/px.
    phase : float
        Radians at the Gabor's centre.
    centre : (float, float)
        (y, x), px from the middle of the filter.
    width : (float, float)
        Standard deviations of the Gaussian along the bars and across them, px.
    goodness : float
        Share of the profile's variance that the fit explains (R squared), at most 1.
    profile : float
        Share of the filter's energy that the profile holds: 1 for a filter of one colour axis.
    """

    orientation: float
    frequency: float
    phase: float
    centre: tuple[float, float]
    width: tuple[float, float]
    goodness: float
    profile: float


def spatial_profile(weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the strongest spatial profile `(F, F)` of a filter `(3, F, F)`, of norm 1, and its share of the energy."""
    side = weight.shape[-1]
    space, strengths, colours = np.linalg.svd(weight.reshape(3, -1).T, full_matrices=False)
    energy = float((strengths**2).sum())
    sign = 1.0 if colours[0].sum() >= 0 else -1.0  # light is positive
    return sign * space[:, 0].reshape(side, side), float(strengths[0] ** 2 / energy) if energy > 0 else 0.0


def wave(parameters: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a Gabor of norm-free amplitude: (amplitude, angle, frequency, phase, centre y, x, log widths)."""
    amplitude, angle, frequency, phase, above, left, log_along, log_across = parameters
    down, right = y - above, x - left
    across = right * math.sin(angle) + down * math.cos(angle)
    along = right * math.cos(angle) - down * math.sin(angle)
    envelope = np.exp(-0.5 * ((along / math.exp(log_along)) ** 2 + (across / math.exp(log_across)) ** 2))
    return amplitude * envelope * np.cos(2 * math.pi * frequency * across + phase)


def slopes(parameters: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the derivatives of `wave` by its parameters, of the shape of ``y`` and a last axis of 8."""
    amplitude, angle, frequency, phase, above, left, log_along, log_across = parameters
    sine, cosine, cycle = math.sin(angle), math.cos(angle), 2 * math.pi * frequency
    down, right = y - above, x - left
    across, along = right * sine + down * cosine, right * cosine - down * sine
    u, v = along / math.exp(log_along), across / math.exp(log_across)
    envelope = np.exp(-0.5 * (u**2 + v**2))
    even, odd = envelope * np.cos(cycle * across + phase), envelope * np.sin(cycle * across + phase)
    by_along = -amplitude * even * u / math.exp(log_along)
    by_across = -amplitude * (even * v / math.exp(log_across) + odd * cycle)
    return np.stack(
        [
            even,
            by_across * along - by_along * across,
            -amplitude * odd * 2 * math.pi * across,
            -amplitude * odd,
            by_along * sine - by_across * cosine,
            -by_along * cosine - by_across * sine,
            amplitude * even * u**2,
            amplitude * even * v**2,
        ],
        axis=-1,
    )


def _band(profile: np.ndarray) -> tuple[float, float]:
    """Return the frequencies that a profile can have, cycles/px: one cycle per side from its strongest, either way.

    Sampled by few pixels, a narrow Gabor of a higher frequency can fit as well as the one that is there.
    """
    side, padded = len(profile), 16 * len(profile)
    power = np.abs(np.fft.fft2(profile - profile.mean(), (padded, padded)))
    steps = np.fft.fftfreq(padded)
    strongest = min(0.5, float(np.hypot(steps[:, None], steps[None, :]).flat[power.argmax()]))
    return max(0.0, strongest - 1 / side), min(0.5, strongest + 1 / side)


def _starts(profile: np.ndarray, y: np.ndarray, x: np.ndarray, band: tuple[float, float]) -> list[list[float]]:
    """Return the points of the grid that fit best; amplitude and phase follow from the rest by linear least squares."""
    side = len(profile)
    ranked = []
    for i in range(ANGLES):
        angle = math.pi * i / ANGLES
        across = x * math.sin(angle) + y * math.cos(angle)
        for frequency in sorted({min(max(each, band[0]), band[1]) for each in FREQUENCIES}):
            turn = 2 * math.pi * frequency * across
            for width in WIDTHS:
                envelope = np.exp(-0.5 * (x**2 + y**2) / (width * side) ** 2)
                basis = np.stack([(envelope * np.cos(turn)).ravel(), (envelope * np.sin(turn)).ravel()], axis=1)
                (cosine, sine), *_ = np.linalg.lstsq(basis, profile.ravel(), rcond=None)
                cost = float(((basis @ (cosine, sine) - profile.ravel()) ** 2).sum())
                size = math.log(min(side, max(0.5, width * side)))
                point = [math.hypot(cosine, sine), angle, frequency, math.atan2(-sine, cosine), 0.0, 0.0, size, size]
                ranked.append((cost, point))
    return [point for _, point in sorted(ranked)[:STARTS]]


def fit(weight: Tensor) -> Gabor | None:
    """Fit a Gabor to a filter `(3, F, F)`; None where the filter is 0.

    The search (least squares, bounded: the centre stays in the filter, the widths between half a pixel and the
    filter's side, the frequency below half a cycle per pixel and near the strongest in the filter's spectrum) begins
    at the best points of a fixed grid, and the best end counts: nothing is drawn at random.
    """
    filters = weight.detach().cpu().double().numpy()
    if not filters.any():
        return None
    profile, share = spatial_profile(filters)
    side = profile.shape[0]
    place = np.arange(side) - (side - 1) / 2
    y, x = place[:, None] + 0 * place[None, :], place[None, :] + 0 * place[:, None]
    half, band = side / 2, _band(profile)
    low = np.array([0, -np.inf, band[0], -np.inf, -half, -half, math.log(0.5), math.log(0.5)])
    high = np.array([np.inf, np.inf, band[1], np.inf, half, half, math.log(side), math.log(side)])
    best = None
    for start in _starts(profile, y, x, band):
        found = least_squares(
            lambda values: (wave(values, y, x) - profile).ravel(),
            start,
            jac=lambda values: slopes(values, y, x).reshape(-1, 8),
            bounds=(low, high),
            max_nfev=100,
            ftol=1e-6,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    _, angle, frequency, phase, above, left, log_along, log_across = best.x
    variance = float(((profile - profile.mean()) ** 2).sum())
    return Gabor(
        orientation=math.degrees(angle) % 180,
        frequency=float(frequency),
        phase=float((phase + math.pi) % (2 * math.pi) - math.pi),
        centre=(float(above), float(left)),
        width=(math.exp(log_along), math.exp(log_across)),
        goodness=1 - 2 * float(best.cost) / variance if variance > 0 else 0.0,
        profile=share,
    )
