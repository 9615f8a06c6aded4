"""The explorer in a live notebook: an anywidget whose pictures come from the kernel when they are looked at."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anywidget
import traitlets
from torch import Tensor, nn

from rfviz.errors import RfvizError, first_line
from rfviz.explorer.atlas import LARGEST_CELL, to_cell, webp
from rfviz.explorer.sources import LiveSource, NetSource, RunSource, objective_of
from rfviz.explorer.static import MODULE, STYLE
from rfviz.images.data import Indexed
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.maximization import maximize
from rfviz.kernels.maximization.regularizers import L2, Jitter, Regularizer, TotalVariation
from rfviz.lab.run import Run

MOST_STEPS = 2000
"""Steps of a maximization that a reader may ask for."""

MOST_JITTER = 32
"""And px of jitter."""


class Explorer(anywidget.AnyWidget):
    """Pick a network, a layer and a channel, and see what is known of it; maximize it again with other settings.

    Parameters
    ----------
    net : nn.Module, or dict from str to nn.Module
        Any networks that `torch.fx` can trace; two or more can be compared side by side.
    images : Tensor (N, 3, H, W) or data set
        RGB in [0, 1]. Items of a data set may be (image, label); where it has `classes`, they are named.
    whitening : Whitening
        Applied to the images just before the networks.
    layers : sequence of str, optional
        By default every layer whose receptive field is known.
    **options
        `top_k`, `strongest` and `steps`; see `rfviz.explorer.sources.NetSource`.

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
        net: nn.Module | Mapping[str, nn.Module],
        images: Tensor | Indexed,
        whitening: Whitening = NONE,
        layers: Sequence[str] | None = None,
        **options: int,
    ):
        if not len(images):
            raise RfvizError("there are no images to explore: give at least one.")
        nets = {type(net).__name__: net} if isinstance(net, nn.Module) else net
        self._begin(NetSource(nets, images, whitening, None if layers is None else list(layers), **options))

    @classmethod
    def of_run(cls, run: Run, state: str = "") -> "Explorer":
        """Show a run, beginning with a state such as ``"resnet34/layer1.0/18"``."""
        explorer = cls.__new__(cls)
        explorer._begin(RunSource(run), state)
        return explorer

    def _begin(self, source: LiveSource, state: str = "") -> None:
        self.source = source
        super().__init__(manifest={**source.manifest(), "live": True}, state=state)
        self.on_msg(self._answer)

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
        used: list[Regularizer] = [L2(l2)]
        used += [TotalVariation(variation)] if variation else []
        used += [Jitter(jitter)] if jitter else []
        net, whitening = self.source.net(model)
        found = maximize(
            net, layer, [channel], steps=steps, learning_rate=rate, regularizers=used,
            objective=objective_of(net, layer),
        )  # fmt: skip
        if not (found.images.isfinite().all() and found.activations.isfinite().all()):
            raise RfvizError(f"the maximization left the range of numbers: a rate of {rate:g} is too high.")
        image = to_cell(whitening.to_rgb(found.images[0].float().cpu()), LARGEST_CELL)
        made_with = f"{steps} steps, rate {rate:g}, " + ", ".join(_name(each) for each in used)
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


def _number(message: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """Return a number that a reader typed; an empty field comes as None."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        given = "empty" if value is None else value
        raise RfvizError(f"{name.replace('_', ' ')} is {given}: it must be a number from {low:g} to {high:g}.")
    return value


def _name(regularizer: Regularizer) -> str:
    if isinstance(regularizer, L2):
        return f"L2 {regularizer.weight:g}"
    if isinstance(regularizer, TotalVariation):
        return f"total variation {regularizer.weight:g}"
    return f"jitter {getattr(regularizer, 'pixels', 0)} px"
