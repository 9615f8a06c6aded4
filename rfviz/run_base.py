"""What the parts of a run, each with the results of one idea, use of it."""

from collections.abc import Sequence
from typing import Any

from rfviz import sources
from rfviz.data import Evaluation
from rfviz.models import Net34
from rfviz.presets import Preset
from rfviz.responses import LayerResponses
from rfviz.store import Store
from rfviz.whitening import Whitening


class RunBase:
    """The core of `rfviz.runs.Run`, which defines all of this."""

    preset: Preset
    seed: int
    store: Store
    progress: bool

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

    def collected(
        self, name: str, architecture: str, images: Evaluation, layers: Sequence[str], **options: Any
    ) -> dict[str, LayerResponses]:
        """Return what a pass over some images finds."""
        raise NotImplementedError
