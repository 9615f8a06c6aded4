"""What works with the networks of others: a survey of every family that torchvision has."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
import torchvision
from torchvision.models import get_model_builder, get_model_weights, list_models
from tqdm.auto import tqdm

from rfviz.errors import RfvizError
from rfviz.nets import layer_table, receptive_field, zoo
from rfviz.nets.graph import EXAMPLE, ForwardPass
from rfviz.nets.receptive_field import EXACT, WHOLE_IMAGE, Known
from rfviz.storage import places
from rfviz.storage.files import atomic

COLUMNS = ("network", "layer", "module", "channels", "receptive field", "known", "seen by gradients", "what works")


def smallest() -> list[str]:
    """Return the network of fewest weights of every family of torchvision's classifiers."""
    found: dict[str, tuple[int, str]] = {}
    for name in list_models(torchvision.models):
        family, size = get_model_builder(name).__module__, get_model_weights(name)["DEFAULT"].meta["num_params"]
        found[family] = min(found.get(family, (size, name)), (size, name))
    return sorted(name for _, name in found.values())


def survey(networks: Iterable[str], *, progress: bool = False) -> list[dict[str, Any]]:
    """Return a row for an early, a middle and the last layer of maps, and for the output, of some networks.

    With random weights: receptive fields do not depend on them. Beside the field that is known stands what of an image
    of 224 px has a gradient, for some neurons in the middle of the map, in some pictures of noise.

    Parameters
    ----------
    networks : iterable of str
        Of torchvision.
    progress : bool
        Show a progress bar.
    """
    rows = []
    for name in tqdm(list(networks), desc="networks", unit="network", disable=not progress):
        net = zoo.load(f"torchvision:{name}", zoo.RANDOM).net
        listed = {row.name: row for row in layer_table.layers(net)}
        shown = layer_table.shown(net)
        for layer in dict.fromkeys([shown[0], shown[len(shown) // 2], shown[-1], list(listed)[-1]]):
            row = listed[layer]
            known = receptive_field.known(net, [layer])[layer]
            told = dict.fromkeys(COLUMNS, "") | {
                "network": name, "layer": layer, "module": row.kind, "channels": row.channels,
                "receptive field": _in_words(known), "known": known.how,
                "what works": row._replace(known=known).works,
            }  # fmt: skip
            try:
                with torch.inference_mode():
                    ForwardPass(net, [layer])(torch.rand(1, 3, 224, 224))
                if row.positions > 1:
                    told["seen by gradients"] = _in_words(receptive_field.measured(net, layer), f"all {EXAMPLE} px")
            except RfvizError as error:
                told["what works"] = str(error)
            rows.append(told)
    return rows


def _in_words(known: Known, whole: str = "whole image") -> str:
    return whole if known.field.is_whole_image else f"{known.field.size} px"


def export(rows: list[dict[str, Any]], to: Path) -> None:
    """Write a survey as JSON.

    Raises
    ------
    RfvizError
        If the file cannot be written.
    """
    with atomic(to) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def kept() -> list[dict[str, Any]]:
    """Return the survey that is kept in the repository."""
    return json.loads((places.repository() / "book" / "evidence" / "families.json").read_text(encoding="utf-8"))


def by_network(rows: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """Return a survey with a row per network: its layers of maps in the order of the pass, each with its field."""
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        of_network = table.setdefault(row["network"], {"network": row["network"]})
        if row["seen by gradients"] or not row["what works"].startswith(("stimuli", "strongest")):
            known = "" if row["known"] in (EXACT, WHOLE_IMAGE) else f" ({row['known']})"
            told = f"{row['layer']}: {row['receptive field']}{known}"
            place = ("early", "middle", "last")[len(of_network) - 1]
            of_network[place] = told if row["seen by gradients"] else row["what works"]
    return [dict.fromkeys(("network", "early", "middle", "last"), "") | each for each in table.values()]


def filled(rows: Iterable[dict[str, Any]]) -> str:
    """Say how many of the composed fields that fit into the images are filled by pixels with a gradient, to the px."""
    fit = [row for row in rows if row["known"] == EXACT and row["seen by gradients"].endswith(" px")
           and not row["seen by gradients"].startswith("all")]  # fmt: skip
    same = [row for row in fit if row["seen by gradients"] == row["receptive field"]]
    return f"{len(same)} of {len(fit)}"
