"""Results of a run: silent channels, noise in them, the residual stream, and how sparse the layers are."""

import dataclasses

import torch
from torch import Tensor

from rfviz.kernels import interventions, noise_dose, silence, stream
from rfviz.kernels.noise_dose import NoiseDose
from rfviz.kernels.silence import Silence
from rfviz.kernels.similarity import central, correlations
from rfviz.kernels.stream import Written
from rfviz.lab.evidence import Evidence
from rfviz.lab.run_base import RunBase
from rfviz.lab.store import Result
from rfviz.nets.models import LAYERS
from rfviz.storage.digests import tensor_digest


class SharingResults(RunBase):
    """The part of a run that asks for silent channels and shared ones."""

    def sparsity(self, architecture: str) -> dict[str, float]:
        """Return the share of responses that are 0 after every ReLU, in order, over the evaluation images.

        The keys are the stem's ``conv1``, then per block its inner ReLU (``layer1.0.relu1``) and its output.
        """
        names = ["conv1", *(name for block in LAYERS[1:] for name in (f"{block}.relu1", block))]
        images, options = self.images.evaluation, {"top_k": 1, "mean_stimulus": False}
        found = self.collected(f"sparsity-{architecture}", architecture, images, names, **options)
        return {name: 1 - float(found[name].firing_rate.mean()) for name in names}

    def silence(self, architecture: str) -> Silence:
        """Return what keeps channels of the first pooling layer from firing, over the evaluation images."""
        images, pooled = self.images.evaluation, self.pooling_responses(architecture)

        def compute() -> Result:
            found = silence.silence(self.net(architecture), images, pooled, preprocess=self.whitening(architecture))
            return {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}, {}

        made_of = self.made_of(architecture, images=images.fingerprint)
        return Silence(**self.store.get(f"silence-{architecture}", silence, made_of, compute)[0])

    def noise_dose(self, architecture: str) -> NoiseDose:
        """Return the noise experiment by dose, beside matched active channels, and channel by channel."""
        images, pooled, net = self.images.evaluation, self.pooling_responses(architecture), self.net(architecture)
        seeds = [self.seed * noise_dose.SEEDS + i for i in range(noise_dose.SEEDS)]

        strength = stream.read_strength(net)[stream.READERS[0]]
        crops = self.preset.source == "photographs" and not self.preset.images  # of few photographs, one per class
        groups = [int(label) for label in images.labels] if crops else None

        def compute() -> Result:
            found = noise_dose.noise_dose(
                net, images, pooled, strength, seeds=seeds, groups=groups, at_most=self.preset.disturbed_images,
                preprocess=self.whitening(architecture), progress=self.progress,
            )  # fmt: skip
            values = {key: getattr(found, key) for key in ("tested", "inactive", "matched", "doses")}
            tensors = {"single": found.single, "groups": found.groups}
            return {**tensors, **{f"loss/{group}": each for group, each in found.loss.items()}}, values

        made_of = self.made_of(
            architecture, seeds=seeds, images=images.fingerprint, labels=list(images.labels), groups=groups,
            at_most=self.preset.disturbed_images, strength=tensor_digest({"strength": strength}),
        )  # fmt: skip
        tensors, values = self.store.get(f"dose-{architecture}", noise_dose, made_of, compute)
        return NoiseDose(
            tuple(values["tested"]), values["inactive"], tuple(values["matched"]), tuple(values["doses"]),
            {group: tensors[f"loss/{group}"] for group in ("tested", "matched")}, tensors["single"],
            tensors["groups"],
        )  # fmt: skip

    def written(self, architecture: str, control: str | None = None) -> dict[str, Written]:
        """Return what each block writes to the channels that the skips hand on, of the network or of a control.

        Empty without skips.
        """
        images = self.images.evaluation
        if not any("downsample" in name for name, _ in self.net(architecture).named_modules()):
            return {}

        def compute() -> Result:
            net = self.control(architecture, control)
            found = stream.written(net, images, preprocess=self.whitening(architecture))
            return {f"{layer}/{key}": each for layer, both in found.items() for key, each in both._asdict().items()}, {}

        made_of = self.made_of(architecture, images=images.fingerprint, **self.control_of(control))
        name = f"written-{architecture}" + (f"-{control.replace(' ', '-')}" if control else "")
        tensors = self.store.get(name, stream, made_of, compute)[0]
        return {
            layer: Written(*(tensors[f"{layer}/{part}"] for part in Written._fields)) for layer in stream.STREAM[1:]
        }

    def ablations(self, architecture: str) -> dict[str, Tensor]:
        """Return how the loss of each evaluation image changes when one channel is set to 0, per layer `(C, N)`."""
        images = self.images.evaluation
        indices = interventions.spread(len(images), self.preset.disturbed_images)

        def compute() -> Result:
            net, white, found = self.net(architecture), self.whitening(architecture), {}
            for layer in stream.ABLATED:
                changes = {channel: interventions.silencing(channel) for channel in range(net.conv1.out_channels)}
                losses = interventions.loss_changes(
                    net, images, layer, changes, indices=indices, preprocess=white, progress=self.progress
                )
                found[layer] = torch.stack(list(losses.values()))
            return found, {}

        made_of = self.made_of(
            architecture, images=images.fingerprint, labels=list(images.labels), at_most=len(indices),
            layers=list(stream.ABLATED),
        )  # fmt: skip
        tensors = self.store.get(f"ablations-{architecture}", interventions, made_of, compute)[0]
        return {layer: tensors[layer] for layer in stream.ABLATED}

    def tested(self, architecture: str) -> Tensor:
        """Return which channels of the first pooling layer are tested (`rfviz.kernels.noise_dose.tested_channels`)."""
        pooled = self.pooling_responses(architecture)
        mask = torch.zeros(pooled.channels, dtype=torch.bool)
        mask[list(noise_dose.tested_channels(pooled))] = True
        return mask

    def likeness(self, architecture: str) -> Tensor:
        """Return how like its filter the mean of the strongest stimuli of each channel is behind layer1, `(C,)`."""
        last = stream.ABLATED[-1]
        found = self.responses(architecture, [last])[last]
        assert found.strongest_stimulus is not None
        filters = self.net(architecture).conv1.weight.detach().cpu()
        alike = correlations(filters, central(found.strongest_stimulus, filters.shape[-1])).diagonal()
        return torch.where(found.positive_count > 0, alike, torch.nan)

    def evidence(self, architecture: str) -> Evidence:
        """Return what a network has to say of the channel-sharing hypothesis."""
        return Evidence(
            self.pooling_responses(architecture).firing_rate,
            self.tested(architecture),
            self.likeness(architecture),
            self.noise_dose(architecture),
            self.ablations(architecture),
            self.written(architecture),
            self.written(architecture, "random weights"),
        )
