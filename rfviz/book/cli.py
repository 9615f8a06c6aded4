"""The command line: ``rfviz book`` makes the whole book, the other commands its parts."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from rfviz.book import launch, planning, publish
from rfviz.errors import RfvizError, first_line, one_line, unknown
from rfviz.lab import presets, provenance, runs
from rfviz.nets import models
from rfviz.pages import noise_tables, reference, tables
from rfviz.training import distributed

app = typer.Typer(
    help="Preferred stimuli, receptive fields and inactive neurons of ResNet34 and PlainNet34.\n\n"
    "Start with `rfviz book`: it trains both networks on the photographs that come with scikit-image, runs every "
    "notebook and writes a book with all figures. Results are kept in runs/ and computed only once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

PresetOption = Annotated[str, typer.Option("--preset", "-p", help="What to do; `rfviz presets` lists the choices.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the weights, the training images and the noise.")]
SeedsOption = Annotated[
    int, typer.Option(help="Networks to train of each kind, with consecutive seeds: results with mean and spread.")
]
ImagesOption = Annotated[
    str | None,
    typer.Option(help="Folder of images, train/CLASS/ and val/CLASS/, in place of the preset's."),
]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Weights to read instead of training, as MODEL=FILE or MODEL=ADDRESS#sha256=...; once per model."
    ),
]
EpochsOption = Annotated[int | None, typer.Option(help="Number of training epochs.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse broken images instead of leaving them out.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace any other value of the preset, as NAME=VALUE, such as learning_rate=0.1."),
]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="resnet34 or plainnet34; both by default.")]
ChannelsOption = Annotated[str, typer.Option(help="Channel to show: one number, or two for ResNet34 and PlainNet34.")]
INTERRUPTED = 130
"""The exit code that typer gives to Ctrl-C."""

_DEFAULT_CHANNELS = ",".join(str(channel) for channel in presets.PAPER_CHANNELS.values())


def _say(text: object) -> None:
    """Print a line, once, however many processes there are."""
    if distributed.world()[0] == 0:
        typer.echo(text)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise RfvizError(f"{option} {text!r}: write NAME=VALUE.")
    return name, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # a word such as zca needs no quotes


def _overrides(
    images: str | None, weights: list[str] | None, epochs: int | None, strict: bool, settings: list[str] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {name: _value(value) for name, value in (_pair(text, "--set") for text in settings or [])}
    if images is not None:
        found["images"] = images
    if weights:
        found["weights"] = dict(_pair(text, "--weights") for text in weights)
    if epochs is not None:
        found["epochs"] = epochs
    if strict:
        found["strict"] = True
    return found


def _architectures(model: str | None) -> list[str]:
    if model is not None and model not in models.ARCHITECTURES:
        raise unknown("model", model, models.ARCHITECTURES)
    return [model] if model else list(models.ARCHITECTURES)


def _notebook_parameters(
    run: runs.Run, preset: str, seed: int, seeds: int, channels: str, overrides: dict[str, Any]
) -> dict[str, Any]:
    numbers = list(run.channels(channels).values())  # a wrong channel is refused before anything is trained
    return {"preset": preset, "seed": seed, "seeds": seeds, "channels": numbers, "overrides": overrides}


@app.command()
def book(
    preset: PresetOption = "quick",
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    channels: ChannelsOption = _DEFAULT_CHANNELS,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
) -> None:
    """Make the whole book: train, analyse, run the notebooks, build the HTML.

    Example: `rfviz book --preset quick --images ~/my-photographs`
    """
    overrides = _overrides(images, weights, epochs, strict, settings)
    run = runs.open_run(preset, seed, **overrides)
    replicas = run.replicas(seeds)
    parameters = _notebook_parameters(run, preset, seed, seeds, channels, overrides)
    publish.compute(replicas)
    if distributed.world()[0] == 0:
        typer.echo(f"The book is ready: {publish.book(run, parameters)}")


@app.command()
def run(
    preset: PresetOption = "quick",
    only: Annotated[str | None, typer.Option(help="Run just the notebook whose name begins so, such as 02.")] = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    channels: ChannelsOption = _DEFAULT_CHANNELS,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
) -> None:
    """Run the notebooks as a papermill batch, without building the HTML.

    Example: `rfviz run --preset smoke --only 02 --channels 3`
    """
    overrides = _overrides(images, weights, epochs, strict, settings)
    opened = runs.open_run(preset, seed, **overrides)
    replicas = opened.replicas(seeds)
    publish.choose(only)
    parameters = _notebook_parameters(opened, preset, seed, seeds, channels, overrides)
    if only is None:
        publish.compute(replicas)
    if distributed.world()[0] == 0:
        for path in publish.run_notebooks(opened, parameters, only):
            typer.echo(path)


@app.command()
def build(
    preset: PresetOption = "quick",
    seed: SeedOption = 0,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="The whole book as one PDF, which takes Chromium.")] = False,
) -> None:
    """Build the HTML, or a PDF, from notebooks that `rfviz book` has run before, without running them again.

    For changes of the prose. A page whose results are older than the code that made them gets a mark.
    """
    opened = runs.open_run(preset, seed, **_overrides(images, weights, epochs, strict, settings))
    publish.check_executed(opened)
    typer.echo(publish.build_pdf(opened) if pdf else publish.build_html(opened))


@app.command()
def notebooks(to: Annotated[Path, typer.Argument(help="Folder to write to.")]) -> None:
    """Write the notebooks as .ipynb files that install the package themselves, for Binder and Colab."""
    for path in launch.export_notebooks(publish.choose(None), to, launch.address()):
        typer.echo(path)


@app.command()
def train(
    preset: PresetOption = "quick",
    model: ModelOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    images: ImagesOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
) -> None:
    """Train the networks and say where their weights are.

    Interrupted, it goes on where it was, at most a minute back, when it is called again. On several GPUs:
    `torchrun --nproc-per-node 8 -m rfviz train --preset imagenet`
    """
    chosen = _architectures(model)
    opened = runs.open_run(preset, seed, **_overrides(images, None, epochs, strict, settings))
    for replica in opened.replicas(seeds):
        for architecture in chosen:
            where = opened.preset.weights.get(architecture) or replica.weights_path(architecture)
            _say(
                f"{models.PAPER_ARCHITECTURES[architecture]}{f', seed {replica.seed}' if seeds > 1 else ''}: "
                f"{replica.accuracy(architecture):.1%} top-1 on held-out images; weights in {where}"
            )


@app.command()
def responses(
    preset: PresetOption = "quick",
    model: ModelOption = None,
    channels: ChannelsOption = _DEFAULT_CHANNELS,
    seed: SeedOption = 0,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
) -> None:
    """Find preferred stimuli and mean preferred stimuli, and print how often the chosen channels fire."""
    chosen, numbers = _architectures(model), runs.parse_channels(channels)
    opened = runs.open_run(preset, seed, **_overrides(images, weights, epochs, strict, settings))
    for architecture in chosen:
        opened.check_channel(architecture, "maxpool", numbers[architecture])
    found = {architecture: opened.responses(architecture) for architecture in chosen}
    _say(tables.mean_stimulus_table(found, numbers).to_string())


@app.command()
def maximize(
    preset: PresetOption = "quick",
    model: ModelOption = None,
    layer: Annotated[str, typer.Option(help="Layer, such as maxpool or layer1.0.")] = "maxpool",
    channels: ChannelsOption = _DEFAULT_CHANNELS,
    seed: SeedOption = 0,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
) -> None:
    """Maximise every channel of a layer, and print what the chosen channels reach."""
    chosen, numbers = _architectures(model), runs.parse_channels(channels)
    opened = runs.open_run(preset, seed, **_overrides(images, weights, epochs, strict, settings))
    for architecture in chosen:
        opened.check_channel(architecture, layer, numbers[architecture])
    for architecture in chosen:
        channel = numbers[architecture]
        curve = opened.maximization(architecture, layer).activations[:, channel]
        _say(
            f"{models.PAPER_ARCHITECTURES[architecture]}, {layer}, channel {channel}: "
            f"from {curve[0]:.3f} to {curve[-1]:.3f} in {len(curve) - 1} steps"
        )


@app.command()
def table(
    preset: PresetOption = "quick",
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
) -> None:
    """Print Table 1: inactive channels, and what noise in them does to the loss."""
    opened = runs.open_run(preset, seed, **_overrides(images, weights, epochs, strict, settings))
    replicas = opened.replicas(seeds)
    effects = {name: [replica.noise_effect(name) for replica in replicas] for name in models.ARCHITECTURES}
    _say(noise_tables.table1(effects).to_string())
    _say(f"\n{noise_tables.spread_note(seeds, opened.preset.noise_seeds)}.")


@app.command("reference")
def export_reference(
    to: Annotated[Path, typer.Argument(help="Folder to write to, such as book/reference.")],
    preset: PresetOption = "caltech101",
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    images: ImagesOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    strict: StrictOption = False,
    settings: SetOption = None,
) -> None:
    """Keep what is small of a long run: numbers as JSON, filters, mean stimuli and maximization images; no photograph.

    The page Reference run of the book shows what lies in book/reference.
    """
    opened = runs.open_run(preset, seed, **_overrides(images, weights, epochs, strict, settings))
    replicas = opened.replicas(seeds)
    for architecture in opened.preset.weights:
        opened.net(architecture)  # a wrong file is refused before the other network is trained
    command = shlex.join(["rfviz", *sys.argv[1:]])
    reference.export(replicas, to, {"command": command, "commit": provenance.commit()})
    _say(f"written to {to}")


@app.command()
def plan(
    preset: PresetOption = "imagenet",
    images: ImagesOption = None,
    epochs: EpochsOption = None,
    settings: SetOption = None,
) -> None:
    """Say what training would take on this machine: steps, images, hours and memory, from a short probe.

    Nothing is trained, downloaded or kept. Example: `rfviz plan --preset imagenet --set micro_batch=64`
    """
    opened = runs.open_run(preset, **_overrides(images, None, epochs, False, settings))
    for line in planning.report(opened.preset, progress=True):
        _say(line)


@app.command("presets")
def list_presets() -> None:
    """List the presets."""
    for preset in presets.PRESETS.values():
        typer.echo(f"{preset.name:<12}{preset.summary} ({preset.where})")


def main() -> None:
    """Run the command line; bad input ends in one line on standard error and exit code 2."""
    try:
        with distributed.process_group():
            app()
    except RfvizError as error:
        typer.echo(f"rfviz: {one_line(str(error))}", err=True)
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        typer.echo(
            f"rfviz: {first_line(error)} Let fewer images through the network at a time, such as --set micro_batch=32.",
            err=True,
        )
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        typer.echo(f"rfviz: {one_line(str(error))}. Earlier results are unchanged.", err=True)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            typer.echo("rfviz: interrupted. Call the same command again to go on; finished results are kept.", err=True)
        raise
