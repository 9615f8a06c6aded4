"""Every result of the book, each declared once: a function of a run and of the name of one of its networks.

Those of `rfviz.lab.run`, `trained` and `data_whitening`, come before them; the explorer adds its pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from rfviz.images.data import Evaluation
from rfviz.kernels import (
    controls,
    effective,
    identify,
    intervene,
    maximization,
    noise,
    responses,
    silent,
    stream,
    tuning,
)
from rfviz.kernels import pictures as likenesses
from rfviz.kernels.effective import EffectiveFields
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.noise import Disturbances, NoiseDose, NoiseEffect
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silent import Silence
from rfviz.kernels.stream import HandedOn, Written
from rfviz.kernels.tuning import Tuning, centre_surround, gabor, spots
from rfviz.kernels.tuning.centre_surround import Opponency
from rfviz.kernels.tuning.gabor import Gabor
from rfviz.kernels.tuning.spots import ColourTuning
from rfviz.lab.result import result, result_of_all_processes
from rfviz.lab.run import Run, trained
from rfviz.nets.models import ResidualNet
from rfviz.training import trainer

RANDOM = "random weights"
"""The control of a network; see `rfviz.kernels.controls`."""

FIELD_CHANNELS = 12
"""Channels of a layer whose effective fields are measured, at most."""

# -- training ----------------------------------------------------------------------------------------------------------


def history(run: Run, network: str) -> list[dict]:
    """Return the history of training, one entry per epoch; empty where weights were given that do not tell it."""
    stored = run.stored(network)
    return trained(run, network).history if stored is None else stored.history


def accuracy(run: Run, network: str) -> float | None:
    """Return the top-1 accuracy on the evaluation images, a share; None where these have no labels."""
    if not run.labelled:
        return None
    return top1(run, network) if run.stored(network) else history(run, network)[-1]["evaluation_top1"]


@result_of_all_processes
def top1(run: Run, network: str) -> float:
    """Return the top-1 accuracy of given weights on the evaluation images."""
    images = run.evaluation
    return trainer.evaluate(run.net(network), images, run.whitening(network), workers=run.loaders(images.source))[1]


# -- stimuli -----------------------------------------------------------------------------------------------------------


def _collect(
    run: Run, network: str, images: Evaluation, layers: Sequence[str], control: str | None = None, **options: Any
) -> dict[str, LayerResponses]:
    net, white = net_or_control(run, network, control), run.whitening(network)
    return responses.collect(
        net, images, layers, preprocess=white, progress=run.progress, workers=run.loaders(images.source),
        checkpoint=run.scratch(), discard_unusable=True, **options,
    )  # fmt: skip


@result
def stimuli(run: Run, network: str, control: str | None = None) -> dict[str, LayerResponses]:
    """Return what the channels of the first pooling layer and of layer1 respond to, over the stimulus images.

    Of a network, or of a control of it.
    """
    layers, preset = run.network(network).stream, run.preset
    return _collect(
        run, network, run.stimuli, layers, control, top_k=preset.top_k, strongest=preset.strongest,
        borders=preset.borders,
    )  # fmt: skip


@result
def halves(run: Run, network: str) -> list[LayerResponses]:
    """Return what the last of the figures' layers responds to in each half of the stimulus images.

    The halves share no photograph: every second image, or every second class where images are crops of few.
    """
    images, layer = run.stimuli, run.network(network).figure_layers[-1]
    numbers = images.source.labels if _crops(run) else range(len(images))
    parts: list[Any] = [
        Subset(images, [i for i, number in enumerate(numbers) if number % 2 == half]) for half in (0, 1)
    ]
    net, white, workers = run.net(network), run.whitening(network), run.loaders(images.source)
    return [  # without a checkpoint, which could not tell the halves apart
        responses.collect(net, part, [layer], top_k=1, preprocess=white, progress=run.progress, workers=workers)[layer]
        for part in parts
    ]


@result
def border_stimuli(run: Run, network: str) -> dict[str, LayerResponses]:
    """Return the strongest stimuli in the layers of the figures if neurons at the borders compete, too."""
    layers = run.network(network).figure_layers
    return _collect(run, network, run.stimuli, layers, top_k=run.preset.top_k, mean_stimulus=False, borders=True)


@result
def pooling(run: Run, network: str) -> LayerResponses:
    """Return the activity of the first pooling layer over the evaluation images, in which inactivity is defined."""
    return _collect(run, network, run.evaluation, ["maxpool"], top_k=1, mean_stimulus=False)["maxpool"]


@result
def sparsity(run: Run, network: str) -> dict[str, float]:
    """Return the share of responses that are 0 after every ReLU, in order, over the evaluation images."""
    names = run.network(network).relus
    found = _collect(run, network, run.evaluation, names, top_k=1, mean_stimulus=False)
    return {name: 1 - float(found[name].firing_rate.mean()) for name in names}


@result
def maxima(run: Run, network: str, layer: str, control: str | None = None) -> Maximization:
    """Return the activation maximization of every channel of a layer, from the zero image.

    Of a network, or of a control of it.
    """
    net, steps = net_or_control(run, network, control), run.preset.maximization_steps
    return maximization.maximize(net, layer, steps=steps, progress=run.progress)


@result
def clear_maxima(run: Run, network: str, layer: str) -> Maximization:
    """Return clear pictures that maximize every channel of a layer of the figures; see `maximization.SETTINGS`."""
    return maximization.maximize(
        run.net(network), layer, setting="clear", units=stimuli(run, network)[layer],
        preprocess=run.whitening(network), progress=run.progress,
    )  # fmt: skip


@result
def diversity(run: Run, network: str, layer: str, size_of: str, control: str | None = None) -> Tensor:
    """Return how little the strongest stimuli of each channel of a layer have in common, `(C,)`.

    In the middle of them, of the size of the field of the layer `size_of`: see `rfviz.kernels.pictures.diversity`.
    """
    found = stimuli(run, network, control)
    return likenesses.diversity(run.stimuli, found[layer], found[size_of].receptive_field.size)


@result
def readability(run: Run, network: str, layer: str) -> Tensor:
    """Return how much contrast the mean stimulus of each channel has kept; see `rfviz.kernels.pictures.readability`."""
    shown = layer in run.network(network).figure_layers
    found = stimuli(run, network)[layer] if shown else mean_stimuli(run, network, layer)
    return likenesses.readability(run.stimuli, found)


def _crops(run: Run) -> bool:
    """Tell whether images are crops of few photographs, one per class."""
    return run.preset.source == "photographs" and not run.preset.images


def _groups(run: Run) -> list[int] | None:
    """Return which evaluation images are crops of one photograph; None where each is a photograph."""
    return [int(label) for label in run.evaluation.source.labels] if _crops(run) else None


# -- silent channels ---------------------------------------------------------------------------------------------------


@result
def noise_effect(run: Run, network: str) -> NoiseEffect:
    """Return the noise experiment of Table 1, on the evaluation images."""
    count = run.preset.noise_seeds
    seeds = [run.seed * count + i for i in range(count)]
    return noise.noise_effect(
        run.net(network), run.evaluation, pooling(run, network), seeds=seeds, groups=_groups(run),
        preprocess=run.whitening(network), progress=run.progress,
    )  # fmt: skip


@result
def silence(run: Run, network: str) -> Silence:
    """Return what keeps channels of the first pooling layer from firing, over the evaluation images."""
    return silent.silence(run.net(network), run.evaluation, pooling(run, network), preprocess=run.whitening(network))


@result
def noise_dose(run: Run, network: str) -> NoiseDose:
    """Return the noise experiment by dose, beside matched active channels, and channel by channel."""
    net, images = run.net(network), run.evaluation
    seeds = [run.seed * noise.SEEDS + i for i in range(noise.SEEDS)]
    first_reader = run.network(network).readers[0]
    return noise.noise_dose(
        net, images, pooling(run, network), stream.read_strength(net, [first_reader])[first_reader], seeds=seeds,
        groups=_groups(run), at_most=run.preset.disturbed_images,
        preprocess=run.whitening(network), progress=run.progress,
    )  # fmt: skip


@result
def disturbances(run: Run, network: str) -> Disturbances:
    """Return what other disturbances than noise do to the same channels as in `noise_dose`, and by which path."""
    described = run.network(network)
    seeds = [run.seed * noise.SEEDS + i for i in range(noise.SEEDS)]
    return noise.disturbances(
        run.net(network), run.evaluation, described.stream, noise_dose(run, network), skips=described.shares_channels,
        seeds=seeds, at_most=run.preset.disturbed_images, preprocess=run.whitening(network), progress=run.progress,
    )  # fmt: skip


# -- shared channels ---------------------------------------------------------------------------------------------------


@result
def written(run: Run, network: str, control: str | None = None) -> dict[str, Written]:
    """Return what each block of layer1 writes to the channels that the skips hand on, of a network or a control.

    Empty where no skips hand on the channels of the stem.
    """
    if not run.network(network).shares_channels:
        return {}
    net, white = net_or_control(run, network, control), run.whitening(network)
    return stream.written(net, run.evaluation, run.network(network).stream, preprocess=white)


@result
def handed_on(run: Run, network: str, control: str | None = None) -> dict[str, HandedOn]:
    """Return how far channels behind each block of layer1 follow those in front of it, of a network or a control.

    Empty where its blocks have more channels than the stem.
    """
    described = run.network(network)
    if described.bottleneck:
        return {}
    net, white = net_or_control(run, network, control), run.whitening(network)
    return stream.handed_on(net, run.evaluation, described.stream, skips=described.shares_channels, preprocess=white)


@result
def ablations(run: Run, network: str) -> dict[str, Tensor]:
    """Return how the loss of each evaluation image changes when one channel is set to 0, per layer `(C, N)`.

    In the first pooling layer, and behind the last block of layer1.
    """
    net, white, images = run.net(network), run.whitening(network), run.evaluation
    indices = intervene.spread(len(images), run.preset.disturbed_images)
    changes = {channel: intervene.silencing(channel) for channel in range(net.conv1.out_channels)}
    found = {}
    for layer in (run.network(network).stream[0], run.network(network).stream[-1]):
        losses = intervene.loss_changes(
            net, images, layer, changes, indices=indices, preprocess=white, progress=run.progress
        )
        found[layer] = torch.stack(list(losses.values()))
    return found


@dataclass(frozen=True)
class Evidence:
    """What one trained network has to say of channel sharing, for C channels that the stem shares with layer1.

    Parameters
    ----------
    firing_rate : Tensor, shape (C,)
        Share of neurons of the first pooling layer that fire for the evaluation images.
    tested : Tensor of bool, shape (C,)
        Which channels are tested: the inactive ones, or else the least active ones.
    strange : Tensor, shape (C,)
        Share of the energy of the mean over the strongest stimuli behind layer1 that no combination of the filters of
        the first convolution makes (`rfviz.kernels.pictures.outside_span`); NaN where that never fires.
    cut : (Tensor, Tensor), shapes (N,)
        Change of the loss when the blocks write nothing to the tested channels, and to as many matched active ones,
        nats; empty without skips.
    dose : NoiseDose
    ablated : dict from layer to Tensor, shape (C, N)
        Change of the loss of N images when a channel is set to 0 there, nats; see `ablations`.
    written : dict from layer to Written
        Empty without skips.
    by_chance : dict from layer to Written
        The same of a network with random weights.
    fires : dict from layer to Tensor, shape (C,)
        Share of neurons that fire for the stimulus images, in the first pooling layer and behind each block of layer1.
    """

    firing_rate: Tensor
    tested: Tensor
    strange: Tensor
    cut: tuple[Tensor, ...]
    dose: NoiseDose
    ablated: Mapping[str, Tensor]
    written: Mapping[str, Written]
    by_chance: Mapping[str, Written]
    fires: Mapping[str, Tensor]

    @property
    def inactive(self) -> int:
        """How many channels are inactive."""
        return len(self.dose.tested) if self.dose.inactive else 0


def evidence(run: Run, network: str) -> Evidence:
    """Return what a network has to say of channel sharing; its blocks must have as many channels as its stem."""
    pooled = pooling(run, network)
    tested = torch.zeros(pooled.channels, dtype=torch.bool)
    tested[list(silent.tested_channels(pooled))] = True
    others = disturbances(run, network)
    return Evidence(
        pooled.firing_rate, tested, _strange(run, network),
        tuple(each["cut"] for each in (others.tested, others.matched) if "cut" in each),
        noise_dose(run, network), ablations(run, network),
        written(run, network), written(run, network, "random weights"),
        {layer: found.firing_rate for layer, found in stimuli(run, network).items()},
    )  # fmt: skip


def _strange(run: Run, network: str) -> Tensor:
    """Return how much of what each channel responds to behind layer1 no filters of the stem make, `(C,)`."""
    found = stimuli(run, network)[run.network(network).stream[-1]]
    return torch.where(
        found.competes, likenesses.outside_span(found.strongest_deviation, run.net(network).conv1.weight), torch.nan
    )


# -- tuning ------------------------------------------------------------------------------------------------------------


def net_or_control(run: Run, network: str, control: str | None, draw: int = 0) -> ResidualNet:
    """Return a network, or with a control, ``"random weights"``, one of the same architecture that has learnt nothing.

    Its batch norms know the evaluation images, as they would from the first step of training.
    """
    net = run.net(network)
    if control is None:
        return net
    images, white = run.evaluation, run.whitening(network)
    if (network, control, draw) not in run.controls:
        other = controls.calibrated(controls.random_weights(net, draw), images, preprocess=white)
        run.controls = {(network, control, draw): other}  # many measurements of one follow each other
    return run.controls[network, control, draw]


@result
def orientation(run: Run, network: str, layer: str, control: str | None = None, draw: int = 0) -> Tuning:
    """Return the tuning of a layer's channels for grey gratings, of a network or of a control.

    Parameters
    ----------
    control : {"random weights"}, optional
        See `rfviz.kernels.controls`.
    draw : int
        Which of several such controls.
    """
    return tuning.measure(net_or_control(run, network, control, draw), layer, preprocess=run.whitening(network))


@result
def colour(run: Run, network: str, layer: str, control: str | None = None, draw: int = 0) -> ColourTuning:
    """Return which colours the channels of a layer respond to and where, as `orientation` does.

    Of ``"conv1"``, the filters are measured, not responses.
    """
    net, white = net_or_control(run, network, control, draw), run.whitening(network)
    if layer == "conv1":
        return spots.of_filters(net.conv1.weight, preprocess=white)
    return spots.measure(net, layer, preprocess=white)


@result
def opponency(run: Run, network: str, layer: str) -> dict[str, Opponency]:
    """Measure centre and surround of the pictures of every channel of a layer of the figures.

    Of the ``"mean"`` stimulus, of ``"maximization"`` and of the ``"clear"`` picture, and of ``"random weights"``, the
    maximization images of a control. Channels that never fire count in none of them: they have no mean stimulus. The
    background is the colour that the network takes for 0; mean stimuli are placed on it as they differ from the mean
    patch, for the images may have another mean.
    """
    found, white = stimuli(run, network)[layer], run.whitening(network)
    background = white.to_rgb(torch.zeros(3, 1, 1)).flatten()
    pictures = {
        "mean": (found.mean_deviation + background[:, None, None]).clamp(0, 1),
        "maximization": white.to_rgb(maxima(run, network, layer).images),
        "clear": white.to_rgb(clear_maxima(run, network, layer).images),
        RANDOM: white.to_rgb(maxima(run, network, layer, RANDOM).images),
    }
    there = found.positive_count > 0
    return {kind: centre_surround.measure(images, background, there) for kind, images in pictures.items()}


@result
def gabors(run: Run, network: str, control: str | None = None) -> list[Gabor | None]:
    """Return the Gabor fit of every filter of the first convolution, of a network or of a control."""
    return [gabor.fit(each) for each in net_or_control(run, network, control).conv1.weight]


# -- higher layers -----------------------------------------------------------------------------------------------------


@result
def high_stimuli(run: Run, network: str) -> dict[str, LayerResponses]:
    """Return the strongest stimuli of the last layers of the higher stages."""
    layers, borders = run.network(network).high_layers, run.preset.borders
    return _collect(run, network, run.stimuli, layers, top_k=4, mean_stimulus=False, borders=borders)


@result
def effective_fields(run: Run, network: str, layer: str, control: str | None = None) -> EffectiveFields:
    """Return the effective receptive fields of some channels of a layer on their strongest stimuli.

    With a control, those of its neurons at the same places on the same images.
    """
    found = high_stimuli(run, network)[layer]
    net, chosen = net_or_control(run, network, control), effective.spread(found, FIELD_CHANNELS)
    return effective.effective_fields(net, run.stimuli, layer, found, chosen, preprocess=run.whitening(network))


@result
def identification(run: Run, network: str, layer: str) -> dict[str, Tensor]:
    """Return for each kind of picture how often a channel's own drives it more than that of another channel."""
    shown = layer in run.network(network).figure_layers
    found = stimuli(run, network)[layer] if shown else mean_stimuli(run, network, layer)
    chosen = effective.spread(found, run.preset.picture_channels)
    driven = maxima(run, network, layer).images[chosen] if shown else some_maxima(run, network, layer).images
    return dict(identify.identify(run.net(network), layer, found, driven, chosen, preprocess=run.whitening(network)))


@result
def mean_stimuli(run: Run, network: str, layer: str) -> LayerResponses:
    """Return the mean stimuli of a layer that the figures do not show."""
    preset = run.preset
    return _collect(
        run, network, run.stimuli, [layer], top_k=preset.top_k, strongest=preset.strongest, borders=preset.borders
    )[layer]


@result
def some_maxima(run: Run, network: str, layer: str) -> Maximization:
    """Return the activation maximization of the channels whose pictures are tested, of such a layer."""
    chosen = effective.spread(mean_stimuli(run, network, layer), run.preset.picture_channels)
    steps = run.preset.maximization_steps
    return maximization.maximize(run.net(network), layer, chosen, steps=steps, progress=run.progress)
