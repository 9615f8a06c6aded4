"""Results of a run: tuning for orientation and colour, of its networks and of controls."""

import dataclasses

from rfviz import controls, gabor, opponent, tuning
from rfviz.gabor import Gabor
from rfviz.gratings import Gratings
from rfviz.run_base import RunBase
from rfviz.store import Result, source_digest
from rfviz.tuning import ColourTuning, Tuning


class TuningResults(RunBase):
    """The part of a run that measures tuning."""

    def orientation(self, architecture: str, layer: str, control: str | None = None, draw: int = 0) -> Tuning:
        """Return the tuning of a layer's channels for grey gratings, of the network or of a control.

        Parameters
        ----------
        control : {"random weights", "shuffled filters"}, optional
            See `rfviz.controls.control`.
        draw : int
            Which of several such controls.
        """
        return self._tuned("orientation", architecture, layer, control, draw)["luminance"]

    def colour(self, architecture: str, layer: str, control: str | None = None, draw: int = 0) -> ColourTuning:
        """Return the tuning of a layer's channels for gratings along the three colour axes, as `orientation` does."""
        return ColourTuning(self._tuned("colour", architecture, layer, control, draw))

    def _tuned(self, what: str, architecture: str, layer: str, control: str | None, draw: int) -> dict[str, Tuning]:
        white = self.whitening(architecture)

        def compute() -> Result:
            net = self.net(architecture)
            net = net if control is None else controls.control(net, control, draw)
            if what == "colour":
                along = tuning.measure_colour(net, layer, preprocess=white).along
            else:
                along = {"luminance": tuning.measure(net, layer, preprocess=white)}
            tensors = {f"{axis}/responses": each.responses for axis, each in along.items()}
            tensors |= {f"{axis}/blank": each.blank for axis, each in along.items()}
            return tensors, {"gratings": dataclasses.asdict(next(iter(along.values())).gratings)}

        made_of = self.made_of(
            architecture, layer=layer, control=control, draw=draw, controls=source_digest(controls.__name__)
        )
        name = f"{what}-{architecture}-{layer}" + (f"-{control.replace(' ', '-')}-{draw}" if control else "")
        tensors, values = self.store.get(name, tuning, made_of, compute)
        size, *lists = (values["gratings"][key] for key in ("size", "orientations", "frequencies", "phases"))
        gratings = Gratings(size, *map(tuple, lists))
        return {
            axis: Tuning(gratings, tensors[f"{axis}/responses"], tensors[f"{axis}/blank"])
            for axis in opponent.AXES
            if f"{axis}/responses" in tensors
        }

    def gabors(self, architecture: str, control: str | None = None) -> list[Gabor | None]:
        """Return the Gabor fit of every filter of the first convolution, of the network or of a control."""

        def compute() -> Result:
            net = self.net(architecture)
            net = net if control is None else controls.control(net, control)
            fits = [gabor.fit(each) for each in net.conv1.weight]
            return {}, {"fits": [each and dataclasses.asdict(each) for each in fits]}

        made_of = self.made_of(architecture, control=control, controls=source_digest(controls.__name__))
        name = f"gabors-{architecture}" + (f"-{control.replace(' ', '-')}" if control else "")
        _, values = self.store.get(name, gabor, made_of, compute)
        pairs = ("centre", "width")
        return [each and Gabor(**each | {key: tuple(each[key]) for key in pairs}) for each in values["fits"]]
