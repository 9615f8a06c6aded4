"""Widgets for a live notebook: pick a network, a layer and a channel, and see what the channel prefers."""

import ipywidgets
from IPython.display import display

from rfviz import figures
from rfviz.models import PAPER_ARCHITECTURES
from rfviz.presets import FIGURE_LAYERS, PAPER_CHANNELS
from rfviz.runs import Run


class Browser(ipywidgets.VBox):
    """Controls for network, layer and channel above a figure that follows them.

    Parameters
    ----------
    run : Run
        Its results are read, or computed when they are first asked for.
    channel : int, optional
        Channel to begin with; the paper's by default.
    """

    def __init__(self, run: Run, channel: int | None = None):
        self.run = run
        self.model = ipywidgets.Dropdown(
            options=[(paper, name) for name, paper in PAPER_ARCHITECTURES.items()], description="network"
        )
        self.layer = ipywidgets.Dropdown(
            options=[(f"{figures.layer_title(layer)} ({layer})", layer) for layer in FIGURE_LAYERS],
            description="layer",
        )
        self.channel = ipywidgets.BoundedIntText(
            value=PAPER_CHANNELS["resnet34"] if channel is None else channel, min=0, max=10**6, description="channel"
        )
        self._set_range()
        self.output = ipywidgets.Output()
        super().__init__([ipywidgets.HBox([self.model, self.layer, self.channel]), self.output])
        for control in (self.model, self.layer, self.channel):
            control.observe(self._redraw, names="value")
        self._redraw()

    def _set_range(self) -> None:
        found = self.run.responses(self.model.value)[self.layer.value]
        self.channel.max = found.channels - 1  # takes a larger number down with it

    def figure(self) -> figures.Figure:
        """Draw the chosen channel."""
        model, layer, channel = self.model.value, self.layer.value, self.channel.value
        return figures.channel_overview(
            self.run.images.stimuli,
            self.run.responses(model)[layer],
            self.run.maximization(model, layer),
            channel,
            self.run.whitening(model),
            f"{PAPER_ARCHITECTURES[model]}, {figures.layer_title(layer)}, channel {channel}",
        )

    def _redraw(self, _change: object = None) -> None:
        self._set_range()
        self.output.clear_output(wait=True)
        with self.output:
            display(self.figure())
