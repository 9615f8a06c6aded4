"""Table 1 as a pandas frame, as text and as a sentence, for one trained pair of networks or for several seeds."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from rfviz.kernels.inactivity import NoiseEffect, control_count, mean_and_error
from rfviz.nets.models import PAPER_ARCHITECTURES

Effects = Mapping[str, Sequence[NoiseEffect]]
"""For each architecture the noise experiment of each trained network: one per training seed, which are replicas."""

PAPER_TABLE = {
    "resnet34": {"inactive": 13, "dL": 1.26962, "dL_rnd": 2.40560e-2},
    "plainnet34": {"inactive": 2, "dL": -1.66893e-6, "dL_rnd": -8.34465e-7},
}
"""Table 1 of the paper: number of inactive channels of 64, and the two loss differences in nats."""

_PAPER_ROWS = {"inactive": "dL", "random_inactive": "dL_rnd"}


def mean_and_spread(values: Sequence[Tensor]) -> tuple[float, float]:
    """Return mean and spread of one tensor of values over noise seeds `(S,)` per trained network.

    Of one network: the mean over noise seeds and its standard error. Of several: the mean over networks of those
    means, and their standard deviation (the networks differ much more than the noise). NaN without a network.
    """
    if not values:
        return math.nan, math.nan
    if len(values) == 1:
        return mean_and_error(values[0])
    means = torch.stack([each.mean() for each in values])
    return means.mean().item(), means.std().item()


def noise_table(effects: Effects) -> pd.DataFrame:
    """Return Table 1 with our two control rows, as numbers.

    Parameters
    ----------
    effects : dict from architecture to list of NoiseEffect
        One per trained network.

    Returns
    -------
    DataFrame
        One row per architecture and kind of noise (see `rfviz.kernels.inactivity.ROWS`), with columns ``model``, ``noise``,
        ``networks`` (trained ones), ``inactive`` (mean), ``fewest``, ``most``, ``channels`` (of the layer), ``noisy``
        (channels that get noise at a time, mean), ``measured`` (networks in which the row can be measured), ``dL``,
        ``dL_error``, ``dtop1``, ``dtop1_error`` (see `mean_and_spread`; nats, shares) and ``paper_dL``; NaN where there
        is nothing to measure, and for the error where one of several networks can be measured.
    """
    rows = []
    for architecture, replicas in effects.items():
        counts = [len(found.inactive) for found in replicas]
        channels = replicas[0].channels
        control = control_count(channels)
        noisy = {
            "inactive": counts,
            "random_inactive": [min(1, count) for count in counts],
            "least_active": [control] * len(counts),
            "random_active": [min(control, channels - count) for count in counts],
        }
        for row, numbers in noisy.items():
            measured = [found.effects[row] for found in replicas if row in found.effects]
            loss, loss_error = mean_and_spread([effect.loss for effect in measured])
            top1, top1_error = mean_and_spread([effect.top1 for effect in measured])
            if len(measured) == 1 < len(replicas):
                loss_error = top1_error = math.nan  # one network has no spread over networks
            rows.append(
                {
                    "model": architecture,
                    "noise": row,
                    "networks": len(replicas),
                    "inactive": sum(counts) / len(counts),
                    "fewest": min(counts),
                    "most": max(counts),
                    "channels": channels,
                    "noisy": sum(numbers) / len(numbers),
                    "measured": len(measured),
                    "dL": loss,
                    "dL_error": loss_error,
                    "dtop1": top1,
                    "dtop1_error": top1_error,
                    "paper_dL": PAPER_TABLE[architecture].get(_PAPER_ROWS.get(row, ""), float("nan")),
                }
            )
    return pd.DataFrame(rows)


def table1(effects: Effects) -> pd.DataFrame:
    """Return Table 1 with our two control rows, as text for people; the paper's numbers stand beside ours."""
    names = {
        "inactive": "all inactive: ΔL",
        "random_inactive": "one inactive, drawn per 256 images: ΔL_rnd",
        "least_active": "the {} least active (control)",
        "random_active": "{} random active (control)",
    }
    rows = []
    for entry in noise_table(effects).to_dict("records"):
        paper = PAPER_TABLE[entry["model"]]
        count = f"{entry['inactive']:g}"
        if entry["networks"] > 1:
            count = f"{entry['inactive']:.3g} ({entry['fewest']} to {entry['most']}, {entry['networks']} networks)"
        noisy = names[entry["noise"]].format(f"{entry['noisy']:.3g}")
        if 0 < entry["measured"] < entry["networks"]:
            noisy += f" [{entry['measured']} of {entry['networks']} networks]"
        rows.append(
            {
                "network": PAPER_ARCHITECTURES[entry["model"]],
                "inactive": f"{count} of {entry['channels']} (paper: {paper['inactive']} of 64)",
                "noise in": noisy,
                "ΔL (nats)": _with_error(entry["dL"], entry["dL_error"]),
                "ΔL in the paper": "–" if pd.isna(entry["paper_dL"]) else f"{entry['paper_dL']:.6g}",
                "Δ top-1 (points)": _with_error(100 * entry["dtop1"], 100 * entry["dtop1_error"]),
            }
        )
    return pd.DataFrame(rows).set_index(["network", "inactive", "noise in"])


def _with_error(mean: float, error: float) -> str:
    if pd.isna(mean):
        return "–"
    if pd.isna(error) or error == 0:
        return f"{mean:+.3g}"
    digits = max(0, -math.floor(math.log10(error)))  # to the first digit of the error
    return f"{mean:+.{digits}f} ± {error:.{digits}f}"


def spread_note(networks: int, noise_seeds: int) -> str:
    """Say what stands before and after the ± of `table1`."""
    if networks > 1:
        return f"Mean ± standard deviation over {networks} trained networks, each with {noise_seeds} noise seeds"
    return f"Mean ± standard error over {noise_seeds} noise seed{'s' * (noise_seeds != 1)}"


def noise_summary(effects: Effects) -> str:
    """Say in Markdown what the noise experiment shows.

    A change counts where the 95 % confidence interval of its mean (Student's t, over noise seeds of one network or over
    networks) does not hold 0.
    """
    if not any(found.inactive for replicas in effects.values() for found in replicas):
        return (
            "**Answer.** Neither network has an inactive channel in this run, so there is nothing for the paper's two "
            "experiments to disturb; only the controls can be measured. The paper finds 13 of 64 and 2 of 64."
        )
    sentences = [_verdict(PAPER_ARCHITECTURES[architecture], replicas) for architecture, replicas in effects.items()]
    counts = {name: [len(found.inactive) for found in replicas] for name, replicas in effects.items()}
    pairs = list(zip(counts["resnet34"], counts["plainnet34"], strict=True))
    seeds = len(pairs)
    more = sum(resnet > plain for resnet, plain in pairs)
    how_often = f" for {more} of {seeds} seeds" if seeds > 1 else ""
    if more > seeds / 2:
        agreement = f"As in the paper, ResNet34 has more inactive channels than PlainNet34{how_often}."
    elif how_often and more:
        agreement = f"ResNet34 has more inactive channels than PlainNet34, as in the paper, only{how_often}."
    else:
        agreement = "Unlike in the paper, ResNet34 does not have more inactive channels than PlainNet34."
    return f"**Answer.** {agreement} {' '.join(sentences)}"


def _verdict(name: str, replicas: Sequence[NoiseEffect]) -> str:
    having = [found for found in replicas if found.inactive]
    if not having:
        which = "has no inactive channel in this run" if len(replicas) == 1 else "never has an inactive channel"
        return f"{name} {which}, so the paper's two experiments have nothing to disturb."
    losses = [found.effects["inactive"].loss for found in having]
    loss, error = mean_and_spread(losses)
    count = len(having) if len(having) > 1 else len(losses[0])
    if len(having) > 1:
        error /= math.sqrt(count)
    if math.isnan(error):
        verdict = f"changes the loss by {loss:+.3g} nats (one noise seed: how sure that is cannot be said)"
    elif abs(loss) <= stats.t.ppf(0.975, count - 1) * error:
        verdict = "does not change the loss measurably"
    else:
        verdict = f"{'raises' if loss > 0 else 'lowers'} the loss by {abs(loss):.3g} nats"
    if len(replicas) > 1:
        return (
            f"In {name}, noise in the inactive channels {verdict} ({len(having)} of {len(replicas)} networks have any)."
        )
    inactive = len(having[0].inactive)
    which = "one inactive channel" if inactive == 1 else f"{inactive} inactive channels"
    return f"In {name}, noise in the {which} {verdict}."
