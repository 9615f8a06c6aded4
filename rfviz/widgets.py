"""Widgets for a live notebook: pick a network, a layer and a channel, and see what the channel prefers."""

import base64
import html

import ipywidgets

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
        # Not an Output widget: with one, a batch that runs the notebook now and then waits for ever for the end of the
        # cell (nbclient, issue 312).
        self.picture = ipywidgets.HTML()
        super().__init__([ipywidgets.HBox([self.model, self.layer, self.channel]), self.picture])
        for control in (self.model, self.layer, self.channel):
            control.observe(self._redraw, names="value")
        self._redraw()

    def _set_range(self) -> None:
        found = self.run.responses(self.model.value)[self.layer.value]
        self.channel.max = found.channels - 1  # takes a larger number down with it

    @property
    def title(self) -> str:
        """What is shown, for people."""
        model, layer = self.model.value, self.layer.value
        return f"{PAPER_ARCHITECTURES[model]}, {figures.layer_title(layer)}, channel {self.channel.value}"

    def figure(self) -> figures.BookFigure:
        """Draw the chosen channel."""
        model, layer = self.model.value, self.layer.value
        return figures.channel_overview(
            self.run.images.stimuli,
            self.run.responses(model)[layer],
            self.run.maximization(model, layer),
            self.channel.value,
            self.run.whitening(model),
            self.title,
        )

    def _redraw(self, _change: object = None) -> None:
        self._set_range()
        picture = base64.b64encode(self.figure()._repr_png_()).decode()
        alternative = f"{self.title}: preferred stimuli, mean preferred stimulus and maximization image"
        self.picture.value = (
            f'<img src="data:image/png;base64,{picture}" alt="{html.escape(alternative)}" style="max-width: 100%">'
        )
