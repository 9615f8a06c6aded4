"""A run: a preset, a seed, and the folder in which everything computed for them is kept.

Every method computes its result when it is first asked for and reads it from the folder ever after; see `rfviz.store`
for what makes it compute anew. So a notebook may be executed as often as one likes.
"""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfviz import inactivity, maximization, models, presets, provenance, responses, sources, training, whitening
from rfviz.data import Evaluation
from rfviz.digests import digest, tensor_digest
from rfviz.errors import RfvizError, check_channel, unknown
from rfviz.inactivity import Effect, NoiseEffect
from rfviz.maximization import Maximization
from rfviz.models import ARCHITECTURES, Net34
from rfviz.presets import FIGURE_LAYERS, Preset
from rfviz.receptive_field import ReceptiveField
from rfviz.responses import LayerResponses
from rfviz.store import Result, Store, source_digest
from rfviz.training_state import States
from rfviz.whitening import Whitening


def root() -> Path:
    """Return the folder of all runs: ``RFVIZ_RUNS``, or ``runs/`` in the repository whatever the current folder."""
    return Path(os.environ.get("RFVIZ_RUNS") or provenance.repository() / "runs").resolve()


def open_run(preset: str = "quick", seed: int = 0, **overrides: Any) -> "Run":
    """Open the run of a preset.

    Parameters
    ----------
    preset : str
        One of `rfviz.presets.PRESETS`.
    seed : int
        Of the initial weights, the order and augmentation of training images, and the noise.
    **overrides
        Values to replace; see `rfviz.presets.get`. A run with overrides has a folder of its own.

    Raises
    ------
    RfvizError
        If the preset, an option or a value is wrong.
    """
    if not isinstance(seed, int) or seed < 0:
        raise RfvizError(f"seed is {seed!r}: it must be a whole number from 0 up.")
    overrides = {
        key: value
        for key, value in overrides.items()
        if (key in _MAY_BE_NONE or value is not None) and not (key in _PATHS and value in ("", {}))
    }
    for key in _PATHS & overrides.keys():
        overrides[key] = _absolute(overrides[key])
    found = presets.get(preset, **overrides)
    name = f"{preset}-{digest(overrides)[:6]}" if overrides else preset
    return Run(found, seed, root() / name)


_PATHS = {"images", "weights"}
_MAY_BE_NONE = {"window", "short_side", "evaluation_crop"}  # elsewhere None means: as the preset has it


def _absolute(value: Any) -> Any:
    """Make paths, also those in a mapping, absolute text; the name of published weights is no path and stays."""
    if isinstance(value, Mapping):
        return {key: _absolute(each) for key, each in value.items()}
    if not isinstance(value, (str, os.PathLike)):
        return value
    path = Path(value).expanduser()
    return str(path.resolve()) if path.exists() else os.fspath(value)


def parse_channels(channels: int | str | Sequence[int]) -> dict[str, int]:
    """Return the channel of each network from what a notebook's parameter `channels` may hold.

    Parameters
    ----------
    channels : int, sequence of two ints, or str
        One channel for both networks, or ResNet34's and PlainNet34's, also as text such as ``"18,19"``.

    Raises
    ------
    RfvizError
        If it is anything else.
    """
    given = channels
    try:
        if isinstance(given, str):
            given = [int(part) for part in given.strip("[]() ").split(",")]
        numbers = [int(given)] if isinstance(given, int) else [int(number) for number in given]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, len(ARCHITECTURES)):
        raise RfvizError(
            f"channels is {channels!r}: give one channel number, or two such as 18,19 for ResNet34 and PlainNet34."
        )
    return dict(zip(ARCHITECTURES, numbers * (len(ARCHITECTURES) // len(numbers)), strict=True))


class Run:
    """Everything that a preset and a seed lead to.

    Parameters
    ----------
    preset : Preset
    seed : int
    folder : Path
        Results are kept in ``folder / "results"``.
    device : torch.device, optional
        A CUDA GPU where there is one.
    progress : bool
        Show progress bars.
    """

    def __init__(
        self,
        preset: Preset,
        seed: int,
        folder: Path,
        device: torch.device | None = None,
        progress: bool = True,
    ):
        self.preset, self.seed, self.folder, self.progress = preset, seed, folder, progress
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.store = Store(folder / "results")
        for kernel in (inactivity, maximization, responses, training, whitening):
            source_digest(kernel.__name__)  # of the code as it was loaded, not as it may be edited while this runs
        self._nets: dict[str, Net34] = {}

    @cached_property
    def images(self) -> sources.Images:
        """Training, evaluation and stimulus images."""
        loaded = sources.load(self.preset)
        if len(loaded.train.classes) < 2:
            raise RfvizError(
                f"{self.preset.images or self.preset.source} has only the class {loaded.train.classes[0]!r}: training "
                "needs at least two."
            )
        return loaded

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.images.train.classes

    @cached_property
    def data_whitening(self) -> Whitening:
        """The whitening that the training images give."""
        train = self.images.train
        _, values = self.store.get(
            "whitening",
            whitening,
            {"data": train.fingerprint, "kind": self.preset.whitening},
            lambda: ({}, whitening.fit((train[i][0] for i in range(len(train))), self.preset.whitening).to_json()),
        )
        return Whitening.from_json(values)

    def _training_made_of(self, architecture: str) -> dict[str, Any]:
        if architecture not in ARCHITECTURES:
            raise unknown("model", architecture, ARCHITECTURES)
        return {
            "architecture": architecture,
            "width": self.preset.width,
            "classes": list(self.classes),
            "train": self.images.train.fingerprint,
            "evaluation": self.images.evaluation.fingerprint,
            "whitening": self.data_whitening.to_json(),
            "recipe": dataclasses.asdict(self.preset.recipes[architecture]),
            "seed": self.seed,
            "device": self.device.type,
        }

    def weights_path(self, architecture: str) -> Path:
        """Return the file of the weights that this run trains, whether or not it is there yet."""
        return self.store.path(f"weights-{architecture}", training, self._training_made_of(architecture))

    def _trained(self, architecture: str) -> Result:
        checkpoint = self.weights_path(architecture).with_suffix(".checkpoint")

        def compute() -> Result:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                net = models.build(architecture, self.preset.width, len(self.classes))
            history = training.train(
                net.to(self.device), self.images.train, self.images.evaluation, self.preset.recipes[architecture],
                self.data_whitening, seed=self.seed, checkpoint=checkpoint, progress=self.progress,
            )  # fmt: skip
            return net.state_dict(), {"history": history, "whitening": self.data_whitening.to_json()}

        made_of = self._training_made_of(architecture)
        result = self.store.get(f"weights-{architecture}", training, made_of, compute, together=True)
        States(checkpoint).remove()
        return result

    def net(self, architecture: str) -> Net34:
        """Return the trained network, in evaluation mode: trained now, or read from the run or from given weights."""
        if architecture not in self._nets:
            given = self.preset.weights.get(architecture)
            net = models.load(given if given is not None else self._trained(architecture)[0])
            if net.name != architecture:
                raise RfvizError(
                    f"{given} holds a {models.PAPER_ARCHITECTURES[net.name]}, but was given as "
                    f"{models.PAPER_ARCHITECTURES[architecture]}."
                )
            named = models.stored_classes(given) if given is not None else None
            if named is not None and list(named) != list(self.classes):
                raise RfvizError(
                    f"{given} was trained on the classes {', '.join(named[:5])}, ..., the images have "
                    f"{', '.join(self.classes[:5])}, ...: give images of the same classes."
                )
            if net.fc.out_features != len(self.classes):
                raise RfvizError(
                    f"{given} tells {net.fc.out_features} classes apart, but the images have {len(self.classes)}: "
                    "give images of the classes that it was trained on."
                )
            # On CPUs as on GPUs, convolutions are fastest with the channels last in memory.
            self._nets[architecture] = net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self._nets[architecture]

    def history(self, architecture: str) -> list[dict]:
        """Return the history of training, one entry per epoch; empty where weights were given."""
        if architecture in self.preset.weights:
            return []
        return self._trained(architecture)[1]["history"]

    def whitening(self, architecture: str) -> Whitening:
        """Return the whitening that goes with the weights of a network."""
        if architecture not in ARCHITECTURES:
            raise unknown("model", architecture, ARCHITECTURES)
        given = self.preset.weights.get(architecture)
        if given is None:
            return self.data_whitening
        self.net(architecture)  # refuses a file that is missing or holds something else
        return models.stored_whitening(given) or self.data_whitening

    def _made_of(self, architecture: str, **parameters: Any) -> dict:
        return {
            "weights": tensor_digest(self.net(architecture).state_dict()),
            "whitening": self.whitening(architecture).to_json(),
            **parameters,
        }

    def responses(self, architecture: str, layers: Sequence[str] = FIGURE_LAYERS) -> dict[str, LayerResponses]:
        """Return what the channels of some layers respond to, over the stimulus images."""
        options = {"top_k": self.preset.top_k, "strongest": self.preset.strongest}
        return self._collected(f"responses-{architecture}", architecture, self.images.stimuli, layers, **options)

    def pooling_responses(self, architecture: str) -> LayerResponses:
        """Return the activity of the first pooling layer over the evaluation images, in which inactivity is defined."""
        options = {"top_k": 1, "mean_stimulus": False}
        images = self.images.evaluation
        return self._collected(f"pooling-{architecture}", architecture, images, ["maxpool"], **options)["maxpool"]

    def _collected(
        self, name: str, architecture: str, images: Evaluation, layers: Sequence[str], **options: Any
    ) -> dict[str, LayerResponses]:
        net, white = self.net(architecture), self.whitening(architecture)
        options["precision"] = self.preset.analysis_precision
        made_of = self._made_of(architecture, layers=list(layers), images=images.fingerprint, **options)
        checkpoint = self.store.path(name, responses, made_of).with_suffix(".checkpoint")

        def compute() -> Result:
            return _pack_responses(
                responses.collect(
                    net, images, layers, preprocess=white, checkpoint=checkpoint, progress=self.progress,
                    **options,
                )
            )  # fmt: skip

        tensors, values = self.store.get(name, responses, made_of, compute, together=True)
        for file in checkpoint.parent.glob(f"{checkpoint.name}*"):  # one of each process
            file.unlink(missing_ok=True)
        return _unpack_responses(tensors, values)

    def maximization(self, architecture: str, layer: str) -> Maximization:
        """Return the activation maximization of every channel of a layer, from the zero image."""
        options: dict[str, Any] = {"steps": self.preset.maximization_steps}

        def compute() -> Result:
            found = maximization.maximize(self.net(architecture), layer, progress=self.progress, **options)
            return {"images": found.images, "activations": found.activations}, {}

        tensors, _ = self.store.get(
            f"maximization-{architecture}-{layer}",
            maximization,
            self._made_of(architecture, layer=layer, **options),
            compute,
        )
        return Maximization(**tensors)

    def maximizations(self, architecture: str) -> dict[str, Maximization]:
        """Return the activation maximization of the layers that the paper shows."""
        return {layer: self.maximization(architecture, layer) for layer in FIGURE_LAYERS}

    def noise_effect(self, architecture: str) -> NoiseEffect:
        """Return the noise experiment of Table 1, on the evaluation images."""
        seeds = [self.seed * self.preset.noise_seeds + i for i in range(self.preset.noise_seeds)]
        net, images, white = self.net(architecture), self.images.evaluation, self.whitening(architecture)

        def compute() -> Result:
            pooled = self.pooling_responses(architecture)
            found = inactivity.noise_effect(net, images, pooled, seeds=seeds, preprocess=white, progress=self.progress)
            tensors: dict[str, Tensor] = {}
            for row, effect in found.effects.items():
                tensors |= {f"{row}/loss": effect.loss, f"{row}/top1": effect.top1}
            values = {**dataclasses.asdict(found), "effects": {row: e.channels for row, e in found.effects.items()}}
            return tensors, values

        tensors, values = self.store.get(
            f"noise-{architecture}",
            inactivity,
            self._made_of(architecture, seeds=seeds, images=images.fingerprint, labels=list(images.labels)),
            compute,
        )
        effects = {
            row: Effect(tuple(channels), tensors[f"{row}/loss"], tensors[f"{row}/top1"])
            for row, channels in values.pop("effects").items()
        }
        return NoiseEffect(inactive=tuple(values.pop("inactive")), effects=effects, **values)

    def accuracy(self, architecture: str) -> float:
        """Return the top-1 accuracy on the evaluation images, a share."""
        if history := self.history(architecture):
            return history[-1]["evaluation_top1"]
        images = self.images.evaluation
        _, values = self.store.get(
            f"accuracy-{architecture}",
            training,
            self._made_of(architecture, images=images.fingerprint, labels=list(images.labels)),
            lambda: (
                {},
                {"top1": training.evaluate(self.net(architecture), images, self.whitening(architecture))[1]},
            ),
        )
        return values["top1"]

    def channels(self, channels: int | str | Sequence[int]) -> dict[str, int]:
        """Return the channel of each network, as `parse_channels` reads it, after making sure that it exists."""
        chosen = parse_channels(channels)
        for architecture, channel in chosen.items():
            self.check_channel(architecture, "maxpool", channel)
        return chosen

    def check_channel(self, architecture: str, layer: str, channel: int) -> None:
        """Raise RfvizError unless a layer of a network has the channel; nothing is trained to find out."""
        if architecture in self.preset.weights:
            net = self.net(architecture)
        else:
            net = models.build(architecture, self.preset.width, 2)
        table = {row.name: row for row in models.layers(net)}
        if layer not in table:
            raise unknown("layer", layer, table)
        check_channel(channel, table[layer].channels)

    def how_made(self) -> provenance.HowMade:
        """Return the folded table "How this page was made" for the end of a notebook."""
        seconds = time.monotonic() - provenance.STARTED
        return provenance.HowMade(
            {**self.provenance(), "duration": f"{seconds:.0f} s for this page; results that were there are read"}
        )

    def provenance(self) -> dict[str, Any]:
        """Return what the results of this run were made with, for people."""
        parts = (self.images.train, self.images.evaluation.source)
        skipped = [name for part in parts for name in getattr(part, "skipped", [])]
        return {
            "preset": self.preset.name,
            "seed": self.seed,
            "parameters": ", ".join(_differences(self.preset)) or "those of the preset",
            **{
                f"weights of {models.PAPER_ARCHITECTURES[name]} (hash)": tensor_digest(self.net(name).state_dict())
                for name in ARCHITECTURES
            },
            "training images (hash)": self.images.train.fingerprint,
            "evaluation images (hash)": f"{self.images.evaluation.fingerprint}, {len(self.images.evaluation)} images",
            "images left out": f"{len(skipped)}: {'; '.join(skipped[:5])}" if skipped else "none",
            **provenance.environment(self.device),
        }


_DESCRIPTION = {"recipes", "summary", "where", "source"}  # told elsewhere, or follows from the rest


def _differences(preset: Preset) -> list[str]:
    """Say in what a preset differs from the one of its name."""
    usual = dataclasses.asdict(presets.PRESETS[preset.name])
    given = dataclasses.asdict(preset)
    changes = [f"{key} = {value!r}" for key, value in given.items() if key not in _DESCRIPTION and value != usual[key]]
    for architecture, recipe in given["recipes"].items():
        before = usual["recipes"][architecture]
        changes += [f"{architecture} {key} = {value!r}" for key, value in recipe.items() if value != before[key]]
    return changes


def _pack_responses(found: dict[str, LayerResponses]) -> Result:
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for layer, result in found.items():
        fields = {each.name: getattr(result, each.name) for each in dataclasses.fields(result)}
        values[layer] = {
            "receptive_field": dataclasses.asdict(fields.pop("receptive_field")),
            **{name: fields.pop(name) for name in ("image_count", "neuron_count")},
        }
        tensors |= {f"{layer}/{name}": value for name, value in fields.items() if value is not None}
    return tensors, values


def _unpack_responses(tensors: dict[str, Tensor], values: dict[str, Any]) -> dict[str, LayerResponses]:
    found = {}
    for layer, numbers in values.items():
        fields: dict[str, Any] = {**numbers, "receptive_field": ReceptiveField(**numbers["receptive_field"])}
        for key, value in tensors.items():
            if key.startswith(f"{layer}/"):
                fields[key.removeprefix(f"{layer}/")] = value
        found[layer] = LayerResponses(**fields)
    return found
