"""Results of a run: tuning for orientation and colour, of its networks and of controls."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rfviz.kernels import tuning
from rfviz.kernels.tuning import ColourTuning, Tuning, gabor, hue, opponent
from rfviz.kernels.tuning.gabor import Gabor
from rfviz.kernels.tuning.gratings import Gratings
from rfviz.kernels.tuning.hue import HueTuning
from rfviz.lab.run_base import RunBase
from rfviz.lab.store import Result


class TuningResults(RunBase):
    """The part of a run that measures tuning."""

    def orientation(self, architecture: str, layer: str, control: str | None = None, draw: int = 0) -> Tuning:
        """Return the tuning of a layer's channels for grey gratings, of the network or of a control.

        Parameters
        ----------
        control : {"random weights", "shuffled filters"}, optional
            See `rfviz.kernels.controls.control`.
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
            net = self.control(architecture, control, draw)
            if what == "colour":
                along = tuning.measure_colour(net, layer, preprocess=white).along
            else:
                along = {"luminance": tuning.measure(net, layer, preprocess=white)}
            tensors = {f"{axis}/responses": each.responses for axis, each in along.items()}
            tensors |= {f"{axis}/blank": each.blank for axis, each in along.items()}
            return tensors, {"gratings": dataclasses.asdict(next(iter(along.values())).gratings)}

        made_of = self.made_of(architecture, layer=layer, **self.control_of(control, draw))
        name = f"{what}-{architecture}-{layer}" + (f"-{control.replace(' ', '-')}-{draw}" if control else "")
        tensors, values = self.store.get(name, tuning, made_of, compute)
        gratings = _gratings(values["gratings"])
        return {
            axis: Tuning(gratings, tensors[f"{axis}/responses"], tensors[f"{axis}/blank"])
            for axis in opponent.AXES
            if f"{axis}/responses" in tensors
        }

    def hue(self, architecture: str, layer: str, control: str | None = None, draw: int = 0) -> HueTuning:
        """Return the tuning of a layer's channels for colours of equal luminance, as `colour` does."""

        def compute() -> Result:
            net = self.control(architecture, control, draw)
            found = hue.measure(net, layer, preprocess=self.whitening(architecture))
            tensors = {"responses": found.responses, "blank": found.blank}
            return tensors, {"gratings": dataclasses.asdict(found.gratings), "angles": found.angles}

        made_of = self.made_of(architecture, layer=layer, **self.control_of(control, draw))
        name = f"hue-{architecture}-{layer}" + (f"-{control.replace(' ', '-')}-{draw}" if control else "")
        tensors, values = self.store.get(name, hue, made_of, compute)
        return HueTuning(_gratings(values["gratings"]), tuple(values["angles"]), tensors["responses"], tensors["blank"])

    def gabors(self, architecture: str, control: str | None = None) -> list[Gabor | None]:
        """Return the Gabor fit of every filter of the first convolution, of the network or of a control."""

        def compute() -> Result:
            net = self.control(architecture, control)
            fits = [gabor.fit(each) for each in net.conv1.weight]
            return {}, {"fits": [each and dataclasses.asdict(each) for each in fits]}

        made_of = self.made_of(architecture, **self.control_of(control))
        name = f"gabors-{architecture}" + (f"-{control.replace(' ', '-')}" if control else "")
        _, values = self.store.get(name, gabor, made_of, compute)
        pairs = ("centre", "width")
        return [each and Gabor(**each | {key: tuple(each[key]) for key in pairs}) for each in values["fits"]]


def _gratings(stored: Mapping[str, Any]) -> Gratings:
    size, *lists = (stored[key] for key in ("size", "orientations", "frequencies", "phases"))
    return Gratings(size, *map(tuple, lists))
