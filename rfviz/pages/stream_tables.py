"""The residual stream in tables and words: who reads the tested channels, and who would miss them."""

from collections.abc import Mapping

import pandas as pd
from torch import nn

from rfviz import intervals
from rfviz.kernels.stream import ABLATED, read_strength
from rfviz.lab.evidence import Evidence
from rfviz.nets.models import PAPER_ARCHITECTURES


def readers_table(networks: Mapping[str, tuple[nn.Module, Evidence]]) -> pd.DataFrame:
    """Return how much more strongly the tested channels are read than others, per network and convolution, as text."""
    rows = []
    for model, (net, found) in networks.items():
        for name, strength in read_strength(net).items():
            tested = strength[found.tested]
            rows.append(
                {
                    "network": PAPER_ARCHITECTURES[model],
                    "read by": name,
                    "inactive" if found.inactive else "least active": f"{tested.mean():.2f}",
                    "less the others": intervals.difference(tested, strength[~found.tested]).shown(),
                }
            )
    return pd.DataFrame(rows).fillna("–").set_index(["network", "read by"])


def ownership_summary(found: Mapping[str, Evidence]) -> str:
    """Say in Markdown who writes the tested channels and whether the network needs them early or late."""
    sentences = []
    for model, each in found.items():
        name = PAPER_ARCHITECTURES[model]
        which = "inactive" if each.inactive else "least active"
        for written in list(each.written.values())[:1]:
            own, others = written.share[each.tested], written.share[~each.tested]
            sentences.append(
                f"Of the variance of the {len(own)} {which} channels of {name}, the first block has written "
                f"{intervals.mean(own).shown('.0%')}; of that of the others {intervals.mean(others).shown('.0%')}."
            )
        early, late = (each.ablated[layer][each.tested].mean(0) for layer in ABLATED)
        gap = each.dose.mean(late - early)
        same = "them" if each.written else "channels of the same numbers, which are others there (the control),"
        words = {
            1: f"misses {same} more behind the stage than in the first pooling layer",
            0: f"may miss {same} more or less behind the stage than in the first pooling layer",
            -1: f"misses {same} less behind the stage than in the first pooling layer",
        }[gap.sign]
        sentences.append(f"{name} {words} (difference of the changes of the loss, in nats: {gap.shown('+.3f')}).")
    return "**Answer.** " + " ".join(sentences)
