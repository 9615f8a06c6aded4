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
from rfviz.nets import receptive_field, zoo
from rfviz.nets.graph import EXAMPLE, ForwardPass
from rfviz.nets.receptive_field import Known
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
        listed = {row.name: row for row in zoo.layers(net)}
        shown = zoo.shown(net)
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
