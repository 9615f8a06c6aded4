"""What the parts of a run, each with the results of one idea, use of it."""

from collections.abc import Sequence
from typing import Any

from rfviz.images.data import Evaluation
from rfviz.images.whitening import Whitening
from rfviz.kernels import calibration, controls
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses
from rfviz.lab import sources
from rfviz.lab.presets import Preset
from rfviz.lab.store import Store, source_digest
from rfviz.nets.models import Net34


class RunBase:
    """The core of `rfviz.lab.runs.Run`, which defines all of this."""

    preset: Preset
    seed: int
    store: Store
    progress: bool
    _last_control: tuple[tuple[str, str, int], Net34] | None = None

    @property
    def images(self) -> sources.Images:
        """Training, evaluation and stimulus images."""
        raise NotImplementedError

    def net(self, architecture: str) -> Net34:
        """Return the trained network."""
        raise NotImplementedError

    def whitening(self, architecture: str) -> Whitening:
        """Return the whitening that goes with the weights of a network."""
        raise NotImplementedError

    def made_of(self, architecture: str, **parameters: Any) -> dict[str, Any]:
        """Return what a result of a network depends on."""
        raise NotImplementedError

    def pooling_responses(self, architecture: str) -> LayerResponses:
        """Return the activity of the first pooling layer over the evaluation images."""
        raise NotImplementedError

    def responses(self, architecture: str, layers: Sequence[str]) -> dict[str, LayerResponses]:
        """Return what the channels of some layers respond to, over the stimulus images."""
        raise NotImplementedError

    def maximization(self, architecture: str, layer: str) -> Maximization:
        """Return the activation maximization of every channel of a layer."""
        raise NotImplementedError

    def collected(
        self, name: str, architecture: str, images: Evaluation, layers: Sequence[str], **options: Any
    ) -> dict[str, LayerResponses]:
        """Return what a pass over some images finds."""
        raise NotImplementedError

    def control(self, architecture: str, kind: str | None, draw: int = 0) -> Net34:
        """Return a control of the trained network (see `rfviz.kernels.controls.control`), or for None that network itself.

        Random weights get batch norms that know the evaluation images, as they would from the first step of training.
        """
        if kind is None:
            return self.net(architecture)
        wanted = (architecture, kind, draw)
        if self._last_control is None or self._last_control[0] != wanted:  # many measurements of one follow each other
            net = controls.control(self.net(architecture), kind, draw)
            if kind == "random weights":
                white = self.whitening(architecture)
                net = calibration.calibrated(net, self.images.evaluation, preprocess=white)
            self._last_control = (wanted, net)
        return self._last_control[1]

    def control_of(self, kind: str | None, draw: int = 0) -> dict[str, Any]:
        """Return what a control depends on besides the network."""
        if kind is None:
            return {"control": None}
        modules = (controls.__name__, calibration.__name__)
        return {
            "control": kind,
            "draw": draw,
            "controls": [source_digest(module) for module in modules],
            "calibrated on": self.images.evaluation.fingerprint,
        }
