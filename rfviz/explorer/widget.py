"""The explorer in a live notebook: an anywidget whose pictures come from the kernel when they are looked at."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from torch import Tensor, nn

from rfviz.errors import RfvizError, first_line
from rfviz.explorer.atlas import LARGEST_CELL, to_cell, webp
from rfviz.explorer.own import NetSource, check_folder
from rfviz.explorer.own_folder import save
from rfviz.explorer.sources import RunSource
from rfviz.explorer.static import MODULE, STYLE
from rfviz.images.data import Indexed
from rfviz.kernels.maximization import maximize
from rfviz.kernels.maximization.regularizers import L2, Jitter, Regularizer, TotalVariation
from rfviz.lab.run import Run
from rfviz.nets import graph, zoo
from rfviz.nets.zoo import Loaded

MOST_STEPS = 2000
"""Steps of a maximization that a reader may ask for."""

MOST_JITTER = 32
"""And px of jitter."""


class Explorer(anywidget.AnyWidget):
    """Pick a network, a layer and a channel, and see what is known of it; maximize it again with other settings.

    To be looked at in a notebook, or saved as a folder of files:
    ``rfviz.explore(net, "my-photographs", preprocess="imagenet").save("my-explorer")``

    Parameters
    ----------
    net : nn.Module, str, or dict from str to either
        Any networks that `torch.fx` can trace, or their names (`rfviz.nets.zoo`); two or more can be compared.
    images : Tensor (N, 3, H, W), data set, list of images, or path of a folder
        RGB in [0, 1], or PIL images. Items of a data set may be (image, label); where it has `classes`, they are named.
    layers : sequence of str, optional
        By default some that give an overview; `rfviz.layers` lists them all, and ``"all"`` takes every one that has
        maps, once.
    preprocess : Whitening, transform, str or pair, optional
        What normalises the images, just before the networks; see `rfviz.images.whitening.of`. By default what the
        weights of a network expect, where that is known.
    weights : str, optional
        Of networks that are given by name; refused where none is. See `rfviz.nets.zoo.load`.
    **options
        `size`, `folder`, `top_k`, `strongest`, `steps`, `strict` and `progress`; see `rfviz.explorer.own.NetSource`.

    Raises
    ------
    RfvizError
        If a layer is unknown, or there are no images.

    Notes
    -----
    A layer is computed when it is first looked at. Pictures travel as messages of a few hundred kB and are never part
    of the widget's state, so a saved notebook does not grow.
    """

    _esm = MODULE.read_text(encoding="utf-8")
    _css = STYLE.read_text(encoding="utf-8")
    manifest = traitlets.Dict().tag(sync=True)
    state = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        net: nn.Module | str | Mapping[str, nn.Module | str],
        images: Tensor | Indexed | str | Path,
        layers: Sequence[str] | None = None,
        preprocess: Any = None,
        *,
        weights: str | None = None,
        **options: Any,
    ):
        self._begin(NetSource(_named(net, weights), images, layers, preprocess, **options))

    @classmethod
    def of_run(cls, run: Run, state: str = "") -> "Explorer":
        """Show a run, beginning with a state such as ``"resnet34/layer1.0/18"``."""
        explorer = cls.__new__(cls)
        explorer._begin(RunSource(run), state)
        return explorer

    def _begin(self, source: NetSource | RunSource, state: str = "") -> None:
        self.source = source
        super().__init__(manifest={**source.manifest(), "live": True}, state=state)
        self.on_msg(self._answer)

    def save(self, folder: str | Path) -> Path:
        """Write the explorer as a folder of files that opens without a server, and return its page.

        Raises
        ------
        RfvizError
            If it is the explorer of a run, whose book has it, the folder lies in that of the images, or a file cannot
            be written.
        """
        if not isinstance(self.source, NetSource):
            raise RfvizError("this is the explorer of a run: its book has it as files, on the page Explorer.")
        check_folder(Path(folder).expanduser(), self.source.image_folder and self.source.image_folder.root)
        return save(self.source, folder)

    def _answer(self, _widget: object, message: dict[str, Any], _buffers: list) -> None:
        key = f"{message.get('model')}/{message.get('layer')}"
        answers: dict[str, Callable] = {"layer": self._send_layer, "maximize": self._send_maximization}
        failed = "failed" if message.get("kind") == "maximize" else "error"
        try:
            answers[message["kind"]](message)
        except RfvizError as error:
            self.send({"kind": failed, "key": key, "text": str(error)})
        except Exception as error:  # a reader sees what went wrong; a traceback in a log does not help there
            self.send({"kind": failed, "key": key, "text": f"{type(error).__name__}: {first_line(error)}"})

    def _send_layer(self, message: Mapping[str, Any]) -> None:
        model, layer = str(message["model"]), str(message["layer"])
        drawn = self.source.drawn(model, layer)
        answer = {"kind": "layer", "key": f"{model}/{layer}", "facts": drawn.facts}
        self.send(answer, list(drawn[:-1]))

    def _send_maximization(self, message: Mapping[str, Any]) -> None:
        model, layer, channel = str(message["model"]), str(message["layer"]), int(message["channel"])
        steps, jitter = int(_number(message, "steps", 1, MOST_STEPS)), int(_number(message, "jitter", 0, MOST_JITTER))
        rate, l2, variation = (_number(message, name, 0, 1e6) for name in ("learning_rate", "l2", "variation"))
        used: dict[str, Regularizer] = {f"L2 {l2:g}": L2(l2)}
        used |= {f"total variation {variation:g}": TotalVariation(variation)} if variation else {}
        used |= {f"jitter {jitter} px": Jitter(jitter)} if jitter else {}
        net, whitening = self.source.net(model)
        found = maximize(net, layer, [channel], steps=steps, learning_rate=rate, regularizers=list(used.values()))
        if not (found.images.isfinite().all() and found.activations.isfinite().all()):
            raise RfvizError(f"the maximization left the range of numbers: a rate of {rate:g} is too high.")
        image = to_cell(whitening.to_rgb(found.images[0].float().cpu()), LARGEST_CELL)
        made_with = ", ".join([f"{steps} steps", f"rate {rate:g}", *used])
        curve = [float(f"{value:.6g}") for value in found.activations[:, 0].tolist()]
        self.send(
            {
                "kind": "maximized",
                "key": f"{model}/{layer}/{channel}",
                "made_with": made_with,
                "curve": curve,
                "text": f"{model}, {layer}, channel {channel}: maximized with {made_with}, "
                f"from {curve[0]:.3g} to {curve[-1]:.3g}.",
            },
            [webp(image)],
        )


def _named(net: nn.Module | str | Mapping[str, nn.Module | str], weights: str | None) -> dict[str, nn.Module | Loaded]:
    """Return networks by name; those that are given by an address are loaded."""
    by_name = isinstance(net, str) or (isinstance(net, Mapping) and any(isinstance(each, str) for each in net.values()))
    if weights is not None and not by_name:
        raise RfvizError(
            "weights are for networks that are given by name: load them into the module with load_state_dict."
        )
    if isinstance(net, nn.Module):
        return {type(graph.unwrapped(net)).__name__: net}
    if isinstance(net, str):
        found = zoo.load(net, weights)
        return {found.name: found}
    if not isinstance(net, Mapping):
        raise RfvizError(f"networks are a {type(net).__name__}: give one, or a dict from names to networks.")
    return {name: zoo.load(each, weights) if isinstance(each, str) else each for name, each in net.items()}


explore = Explorer
"""So that it reads as what it does: ``rfviz.explore(net, "my-photographs", preprocess="imagenet")``."""


def _number(message: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """Return a number that a reader typed; an empty field comes as None."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        given = "empty" if value is None else value
        raise RfvizError(f"{name.replace('_', ' ')} is {given}: it must be a number from {low:g} to {high:g}.")
    return value
