"""Silent channels in tables and words: why they do not fire, and what noise in them does by dose and one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rfviz import intervals
from rfviz.kernels.noise_dose import PAPER_DOSE, NoiseDose
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silence import RARE, Silence
from rfviz.nets.models import PAPER_ARCHITECTURES


def kinds_table(found: Mapping[str, Sequence[Silence]], reached: Mapping[str, Sequence[Tensor]]) -> pd.DataFrame:
    """Return how many channels are of each kind, one row per trained network, as numbers.

    Parameters
    ----------
    found : dict from architecture to list of Silence
        One per trained network.
    reached : dict from architecture to list of bool Tensor, shape (C,)
        Whether activation maximization made the channel fire.

    Returns
    -------
    DataFrame
        ``silent: any picture`` and ``silent: maximization`` count those of the silent channels that a picture in
        [0, 1], or maximization (which may leave that range), can make fire.
    """
    rows = []
    for model, networks in found.items():
        for i, (each, driven) in enumerate(zip(networks, reached[model], strict=True)):
            kinds = each.kinds
            silent = each.firing_rate == 0
            rows.append(
                {
                    "network": PAPER_ARCHITECTURES[model] + (f", network {i + 1}" if len(networks) > 1 else ""),
                    "channels": len(kinds),
                    "active": kinds.count("active"),
                    f"rarely active (< {RARE:.0%})": kinds.count("rarely active"),
                    "silent by the shift": kinds.count("shift"),
                    "silent by the filter": kinds.count("filter"),
                    "silent: any picture": int((silent & each.reachable).sum()),
                    "silent: maximization": int((silent & driven).sum()),
                    "least active: fires in": f"{float(each.firing_rate.min()):.2%}",
                }
            )
    return pd.DataFrame(rows).set_index("network")


def kinds_summary(table: pd.DataFrame) -> str:
    """Say in Markdown why channels do not fire, from `kinds_table`."""
    sentences = []
    for network, row in table.iterrows():
        shift, filters = int(row["silent by the shift"]), int(row["silent by the filter"])
        silent = shift + filters
        if not silent:
            sentences.append(
                f"{network} has no silent channel to explain: its least active one fires at "
                f"{row['least active: fires in']} of the positions."
            )
            continue
        sentences.append(
            f"Of the {silent} silent channel{'s' * (silent > 1)} of {network}, {shift} would fire without the shift of "
            f"batch norm "
            f"and {filters} would not; {int(row['silent: any picture'])} can be made to fire by some picture, and "
            f"activation maximization does so for {int(row['silent: maximization'])}."
        )
    return "**Answer.** " + " ".join(sentences)


def dose_summary(doses: Mapping[str, NoiseDose]) -> str:
    """Say in Markdown whether noise of the paper's strength matters more in silent channels than in matched ones."""
    sentences = []
    for model, found in doses.items():
        i = found.doses.index(PAPER_DOSE)
        which = "inactive" if found.inactive else "least active"
        tested = found.mean(found.loss["tested"][i])
        if len(found.matched) < len(found.tested):
            sentences.append(f"In {PAPER_ARCHITECTURES[model]}, too few active channels are left to compare with.")
            continue
        gap = found.mean(found.loss["tested"][i] - found.loss["matched"][i])
        verdict = {
            1: "more than noise in the matched active ones",
            0: "and it cannot be told whether noise in the matched active ones does more or less",
            -1: "less than noise in the matched active ones",
        }[gap.sign]
        sentences.append(
            f"In {PAPER_ARCHITECTURES[model]}, noise of the paper's strength in the {len(found.tested)} {which} "
            f"channels changes the loss, in nats, by {tested.shown('+.3f')}, {verdict} (difference "
            f"{gap.shown('+.3f')})."
        )
    return "**Answer.** " + " ".join(sentences)


def single_summary(doses: Mapping[str, NoiseDose], pooled: Mapping[str, LayerResponses]) -> str:
    """Say in Markdown whether channels that fire less matter more or less when they are disturbed alone."""
    sentences = []
    for model, found in doses.items():
        each = found.single.mean(1)
        order = intervals.rank_correlation(pooled[model].firing_rate, each)
        words = {
            1: "channels that fire more are the more sensitive ones",
            0: "it cannot be told whether channels that fire more or less are the more sensitive ones",
            -1: "channels that fire less are the more sensitive ones",
        }[order.sign]
        sentence = (
            f"In {PAPER_ARCHITECTURES[model]}, {words}: rank correlation of firing rate and change of the loss "
            f"{order.shown()}."
        )
        if found.inactive:
            mask = torch.zeros(len(each), dtype=torch.bool)
            mask[list(found.tested)] = True
            gap = intervals.difference(each[mask], each[~mask])
            sentence += f" Inactive less active channels, one by one, in nats: {gap.shown('+.3f')}."
        sentences.append(sentence)
    return "**Answer.** " + " ".join(sentences)


def falling_silent(history: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return for each channel that is silent at the end the epoch from which on it never fired.

    Parameters
    ----------
    history : list of dict
        See `rfviz.training.trainer.train`; entries without firing rates give nothing.
    """
    known = [entry for entry in history if "firing_rate" in entry]
    found = {}
    for channel, last in enumerate(known[-1]["firing_rate"] if known else []):
        if last == 0:
            awake = [i for i, entry in enumerate(known) if entry["firing_rate"][channel] > 0]
            found[channel] = known[awake[-1] + 1 if awake else 0]["epoch"]
    return found


def falling_summary(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Say in Markdown when channels fell silent."""
    sentences = []
    for model, history in histories.items():
        name = PAPER_ARCHITECTURES[model]
        known = [entry for entry in history if "firing_rate" in entry]
        if not known:
            sentences.append(f"Of the training of {name}, it is not known how often channels fired.")
            continue
        found = falling_silent(history)
        ever = sum(
            any(entry["firing_rate"][channel] == 0 for entry in known)
            for channel in range(len(known[-1]["firing_rate"]))
        )
        if found:
            epochs = sorted(found.values())
            when = f"epoch {epochs[0]}" if epochs[0] == epochs[-1] else f"epochs {epochs[0]} to {epochs[-1]}"
            sentences.append(
                f"In {name}, {len(found)} channel{'s' * (len(found) > 1)} fell silent for good, in {when} of "
                f"{len(history)}. Silent at the end of some epoch, but firing again: {ever - len(found)}."
            )
        else:
            sentences.append(
                f"In {name}, no channel is silent at the end of training, and {ever or 'none'} "
                f"{'was' if ever <= 1 else 'were'} at the end of an epoch before."
            )
    return "**Answer.** " + " ".join(sentences)
