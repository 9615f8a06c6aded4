"""Results of a run: what matters to neurons of higher layers, and whether pictures of channels work as stimuli."""

import dataclasses

from torch import Tensor

from rfviz.kernels import effective_field, identification, maximization
from rfviz.kernels.effective_field import EffectiveFields
from rfviz.kernels.responses import LayerResponses
from rfviz.lab.presets import FIGURE_LAYERS
from rfviz.lab.run_base import RunBase
from rfviz.lab.store import Result
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.storage.digests import tensor_digest

HIGH_LAYERS = ("layer2.3", "layer3.5", "layer4.2")
"""The last layers of the three higher stages, whose effective fields are measured."""

PICTURE_LAYERS = (*FIGURE_LAYERS, HIGH_LAYERS[0])
"""The layers whose pictures are tested as stimuli; further up, fields and means are as large as images."""

CONTRASTS = (0.5, 1.0, 2.0)
"""At which the pictures of the highest of these layers are shown."""

FIELD_CHANNELS = 12
"""Channels of a layer whose effective fields are measured, at most."""


class HigherLayerResults(RunBase):
    """The part of a run that looks at higher layers."""

    def effective_fields(self, architecture: str, layer: str, control: str | None = None) -> EffectiveFields:
        """Return the effective receptive fields of some channels of a layer on their strongest stimuli.

        With a control (see `rfviz.kernels.controls.control`), those of its neurons at the same places on the same images.
        """
        stimuli, white = self.images.stimuli, self.whitening(architecture)
        options = {"top_k": 4, "mean_stimulus": False}
        found = self.collected(f"high-{architecture}", architecture, stimuli, HIGH_LAYERS, **options)[layer]

        def compute() -> Result:
            net, chosen = self.control(architecture, control), effective_field.spread(found, FIELD_CHANNELS)
            fields = effective_field.effective_fields(net, layer, stimuli, found, chosen, preprocess=white)
            tensors = {each.name: getattr(fields, each.name) for each in dataclasses.fields(fields)}
            return tensors, {"receptive_field": dataclasses.asdict(tensors.pop("receptive_field"))}

        made_of = self.made_of(
            architecture, layer=layer, images=stimuli.fingerprint, channels=FIELD_CHANNELS, **self.control_of(control)
        )
        name = f"fields-{architecture}-{layer}" + (f"-{control.replace(' ', '-')}" if control else "")
        tensors, values = self.store.get(name, effective_field, made_of, compute)
        return EffectiveFields(receptive_field=ReceptiveField(**values["receptive_field"]), **tensors)

    def identification(self, architecture: str, layer: str, contrast: float = 1.0) -> dict[str, Tensor]:
        """Return for each kind of picture how often a channel's own drives it more than that of another channel."""
        found = self._with_means(architecture, layer)
        chosen = effective_field.spread(found, self.preset.picture_channels)
        driven = self._some_maxima(architecture, layer, chosen)

        def compute() -> Result:
            net, white = self.net(architecture), self.whitening(architecture)
            scores = identification.identify(net, layer, found, driven, chosen, preprocess=white, contrast=contrast)
            return dict(scores), {}

        made_of = self.made_of(
            architecture, layer=layer, images=self.images.stimuli.fingerprint, contrast=contrast, channels=chosen,
            strongest=self.preset.strongest, maxima=tensor_digest({"maxima": driven}),
        )  # fmt: skip
        name = f"identification-{architecture}-{layer}-{contrast:g}"
        tensors = self.store.get(name, identification, made_of, compute)[0]
        return {kind: tensors[kind] for kind in identification.KINDS}

    def _with_means(self, architecture: str, layer: str) -> LayerResponses:
        if layer in FIGURE_LAYERS:
            return self.responses(architecture, [layer])[layer]
        options = {"top_k": 1, "strongest": self.preset.strongest}
        return self.collected(f"means-{architecture}", architecture, self.images.stimuli, [layer], **options)[layer]

    def _some_maxima(self, architecture: str, layer: str, channels: list[int]) -> Tensor:
        if layer in FIGURE_LAYERS:
            return self.maximization(architecture, layer).images[channels]
        steps = self.preset.maximization_steps

        def compute() -> Result:
            found = maximization.maximize(self.net(architecture), layer, channels, steps=steps, progress=self.progress)
            return {"images": found.images}, {}

        made_of = self.made_of(architecture, layer=layer, channels=channels, steps=steps)
        return self.store.get(f"maxima-{architecture}-{layer}", maximization, made_of, compute)[0]["images"]
