"""The command line: ``rfviz book`` makes the whole book, the other commands its parts.

Nothing slow is imported before a command needs it, so that help comes at once.
"""

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, Token

from rfviz.book import process
from rfviz.errors import RfvizError, first_line, one_line, unknown
from rfviz.lab import forks
from rfviz.lab.presets import PRESETS

if TYPE_CHECKING:
    from rfviz.lab.run import Run

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""

app = App(
    name="rfviz",
    help="Preferred stimuli, receptive fields and inactive neurons of ResNet34 and PlainNet34.\n\n"
    "Start with `rfviz book`: it trains both networks on the photographs that come with scikit-image, runs every "
    "notebook and writes a book with all figures. Results are kept in runs/ and computed only once.",
    help_format="markdown",
    version_flags=(),
    default_parameter=Parameter(
        negative=(), show_default=lambda value: str(value) if type(value) in (int, str) else None
    ),
)


def _whole(_hint: Any, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    if not re.fullmatch(r"-?\d+", text):  # the parser would round 1.5
        raise ValueError(f"{text!r} is no whole number.")
    return int(text)


PresetName = Annotated[str, Parameter(alias="-p")]
Whole = Annotated[int, Parameter(converter=_whole)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What chooses a run.

    Parameters
    ----------
    preset
        What to do; `rfviz presets` lists the choices.
    seed
        Seed of the weights, the training images and the noise.
    networks
        Networks of the run, such as resnet34,plainnet34,resnet18; the first is the one that the pages are about.
    images
        Folder of images, train/CLASS/ and val/CLASS/, in place of the preset's; any folder where weights are given.
    split
        Share of the images of each class to put aside for evaluation, such as 0.2, where --images has only CLASS/.
    weights
        Weights to read instead of training, as NETWORK=FILE or NETWORK=ADDRESS#sha256=...; once per network.
    epochs
        Number of training epochs.
    strict
        Refuse broken images instead of leaving them out.
    settings
        Replace any other value of the preset, as NAME=VALUE, such as learning_rate=0.1, or of the recipe of one
        network, such as plainnet34.epochs=40.
    """

    preset: PresetName = "quick"
    seed: Whole = 0
    networks: str | None = None
    images: str | None = None
    split: float | None = None
    weights: tuple[str, ...] = ()
    epochs: Whole | None = None
    strict: bool = False
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = ()

    @property
    def overrides(self) -> dict[str, Any]:
        """What replaces values of the preset; see `rfviz.lab.run.open_run`."""
        settings = {name: _value(value) for name, value in (_pair(text, "--set") for text in self.settings)}
        given = {
            "networks": self.networks,
            "images": self.images,
            "split": self.split,
            "weights": dict(_pair(text, "--weights") for text in self.weights) or None,
            "epochs": self.epochs,
            "strict": self.strict or None,
        }
        return settings | {name: value for name, value in given.items() if value is not None}

    def open(self) -> "Run":
        """Open the run."""
        from rfviz.lab.run import open_run

        return open_run(self.preset, self.seed, **self.overrides)


@dataclass(frozen=True, kw_only=True)
class BookOptions(RunOptions):
    """What chooses a book: a run, and what its pages show of it.

    Parameters
    ----------
    seeds
        Networks to train of each kind, with consecutive seeds: results with mean and spread.
    channels
        Channel to show: one number for all networks, or one for each, such as 18,19.
    """

    seeds: Whole = 1
    channels: str | None = None

    def parameters(self, run: "Run") -> dict[str, Any]:
        """Return the parameters of the notebooks; a wrong channel is refused before anything is trained."""
        channels = list(run.channels(self.channels).values())
        return {
            "preset": self.preset, "seed": self.seed, "seeds": self.seeds, "channels": channels,
            "overrides": self.overrides,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LongRunOptions(RunOptions):
    """What chooses a run worth keeping."""

    preset: PresetName = "caltech101"


@dataclass(frozen=True, kw_only=True)
class PlanOptions(RunOptions):
    """What chooses a training to plan."""

    preset: PresetName = "imagenet"


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


def _say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@app.command
def book(*, options: BookOptions = BookOptions()) -> None:
    """Make the whole book: train, analyse, run the notebooks, build the HTML.

    Example: `rfviz book --preset quick --images ~/my-photographs`
    """
    forks.begin(process.PRELOAD)  # it imports while this process does
    from rfviz.book import batch, html

    batch.sources()  # that they are there is known before anything is computed
    run = options.open()
    replicas, parameters = run.replicas(options.seeds), options.parameters(run)
    batch.compute(replicas)
    _say(f"The book is ready: {html.book(run, parameters, batch.made_of(replicas))}")


@app.command(name="run")
def run_notebooks(*, options: BookOptions = BookOptions(), only: str | None = None) -> None:
    """Run the notebooks as a papermill batch, without building the HTML; with --only, always anew.

    Example: `rfviz run --preset smoke --only 02 --channels 3`

    Parameters
    ----------
    only
        Run just the notebook whose name begins so, such as 02.
    """
    forks.begin(process.PRELOAD)
    from rfviz.book import batch

    batch.choose(only)
    run = options.open()
    replicas, parameters = run.replicas(options.seeds), options.parameters(run)
    of = None
    if only is None:
        batch.compute(replicas)
        of = batch.made_of(replicas)
    for path in batch.run_notebooks(run, parameters, only, of):
        _say(path)


@app.command
def build(*, options: RunOptions = RunOptions(), pdf: bool = False) -> None:
    """Build the HTML, or a PDF, from notebooks that `rfviz book` has run before, without running them again.

    For changes of the prose. A page whose results are older than the code that made them gets a mark.

    Parameters
    ----------
    pdf
        The whole book as one PDF, which takes Chromium.
    """
    from rfviz.book import batch, html

    batch.sources()
    run = options.open()
    html.check_executed(run)
    _say(html.pdf(run) if pdf else html.build(run))


@app.command
def notebooks(to: Path) -> None:
    """Write the notebooks as .ipynb files that install the package themselves, for Binder and Colab.

    Parameters
    ----------
    to
        Folder to write to.
    """
    from rfviz.book import batch, launch

    for path in launch.export_notebooks(batch.choose(), to, launch.address()):
        _say(path)


@app.command
def train(
    *, options: RunOptions = RunOptions(), model: Annotated[str | None, Parameter(alias="-m")] = None, seeds: Whole = 1
) -> None:
    """Train the networks and say where their weights are.

    Interrupted, it goes on where it was, at most a minute back, when it is called again. On several GPUs:
    `torchrun --nproc-per-node 8 -m rfviz train --preset imagenet`

    Parameters
    ----------
    model
        One of the run's networks; all by default.
    seeds
        Networks to train of each kind, with consecutive seeds.
    """
    from rfviz.lab import results, together
    from rfviz.lab.run import trained
    from rfviz.training import distributed

    with distributed.process_group():
        run = options.open()
        if model is not None and model not in run.given.networks:
            raise unknown("network", model, run.given.networks)
        _ = run.images  # the processes take turns to read them, which none may begin while another waits for it
        replicas = run.replicas(seeds)
        together.train(replicas, [model] if model else None)
        for replica in replicas:
            for network in run.networks:
                if model not in (None, network.name):
                    continue
                top1 = results.accuracy(replica, network.name)
                there = run.stored(network.name)
                where = there.origin if there else trained.path(replica, network.name)
                called = f"{network.title}{f', seed {replica.seed}' if seeds > 1 else ''}"
                if distributed.world()[0] == 0:
                    said = "no labels to measure top-1 by" if top1 is None else f"{top1:.1%} top-1 on held-out images"
                    _say(f"{called}: {said}; weights in {where}")


@app.command
def reference(
    to: Path, *, options: LongRunOptions = LongRunOptions(), seeds: Whole = 1, numbers_only: bool = False
) -> None:
    """Keep what is small of a long run: numbers as JSON, filters, mean stimuli and maximization images; no photograph.

    The page Reference run of the book shows what lies in book/reference.

    Parameters
    ----------
    to
        Folder to write to, such as book/reference.
    seeds
        Networks to train of each kind, with consecutive seeds.
    numbers_only
        Keep no pictures.
    """
    from rfviz.lab import provenance, together
    from rfviz.pages.evidence import reference

    run = options.open()
    replicas = run.replicas(seeds)
    run.check_weights()
    together.train(replicas)
    command = shlex.join(["rfviz", *sys.argv[1:]])
    reference.export(replicas, to, {"command": command, "commit": provenance.commit()}, numbers_only)
    _say(f"written to {to}")


@app.command
def explore(
    network: str,
    images: Path,
    *,
    out: Path,
    layers: str | None = None,
    weights: str | None = None,
    preprocess: str | None = None,
    size: Whole | None = None,
    strict: bool = False,
    serve: bool = False,
) -> None:
    """Write the explorer of any network and your images: a folder of files that opens without a server.

    Example: `rfviz explore torchvision:resnet18 my-photographs --out my-explorer`. Interrupted, it goes on where it was
    when it is called again.

    Parameters
    ----------
    network
        torchvision:NAME, timm:NAME, rfviz:NAME, or FILE.py:FUNCTION, which runs the code of that file and returns a
        network, or a pair of it and what normalises its images; several with commas between them stand side by side.
    images
        Folder of images, with folders in it or without.
    out
        Folder to write to; index.html in it is the page.
    layers
        Names with commas between them, as `rfviz layers` lists them, or all; by default some that give an overview.
    weights
        A file, an address with a checksum, the name of published weights, or random. By default the published ones.
    preprocess
        imagenet, none, or means and standard deviations such as 0.5,0.5,0.5,0.2,0.2,0.2; by default what the weights
        expect, where that is known.
    size
        Side of the squares that images are cut to, px.
    strict
        Refuse broken images instead of leaving them out.
    serve
        Show it at http://localhost:8000 afterwards.
    """
    from rfviz.explorer import own, own_folder
    from rfviz.nets import zoo

    loaded: dict[str, zoo.Loaded] = {}
    for address in network.split(","):
        each = zoo.load(address.strip(), weights)
        if each.name in loaded:
            raise RfvizError(f"two networks are called {each.name!r}: give their functions different names.")
        loaded[each.name] = each
    source = own.NetSource(
        loaded, images, [each.strip() for each in layers.split(",")] if layers else None, preprocess, size=size,
        folder=out.expanduser() / "results", strict=strict, progress=True,
    )  # fmt: skip
    page = own_folder.save(source, out, progress=True, wait=False)
    for line in own_folder.summary(source):
        _say(line)
    _say(f"open {page}")
    if serve:
        from rfviz.book import launch

        launch.serve(page.parent)


@app.command(name="layers")
def list_layers(network: str) -> None:
    """List the layers of a network: name, kind, channels, receptive field, and what can be measured there.

    Parameters
    ----------
    network
        As for `rfviz explore`, one.
    """
    from rfviz.nets import layer_table

    rows = layer_table.layers(network)
    table = [("layer", "kind", "channels", "receptive field", "works")]
    table += [(row.name, row.kind, str(row.channels), row.field, row.works) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    for line in table:
        _say("  ".join([*(each.ljust(width) for each, width in zip(line, widths, strict=False)), line[-1]]))


@app.command
def families(to: Path) -> None:
    """Survey what works with every family of torchvision's networks, and keep the table as JSON: about three minutes.

    Parameters
    ----------
    to
        File to write, such as book/evidence/families.json.
    """
    from rfviz.nets import families

    families.export(families.survey(families.smallest(), progress=True), to)
    _say(f"written to {to}")


@app.command
def series(to: Path, *, only: str | None = None) -> None:
    """Train the series of the page "When channels fall silent", and keep its numbers as JSON.

    63 small networks: about an hour on two cores. Interrupted, it goes on where it was when it is called again.

    Parameters
    ----------
    to
        Folder to write to, such as book/evidence.
    only
        Train just those whose name begins so, such as resnet34-D6-seed0, and compare them with what the folder has.
    """
    from rfviz.lab import provenance, series

    cells, kept = series.chosen(only), series.load(to)["trainings"] if only else []
    series.train(cells)
    found = [series.measure(cell) for cell in cells]
    for cell, each in zip(cells, found, strict=True):
        same = "" if only is None else " As kept." if each in kept else f" Not as kept in {to}."
        _say(f"{cell.name}: {each['top1']:.1%} top-1, {each['inactive']} inactive channels.{same}")
    if only is None:
        command = shlex.join(["rfviz", *sys.argv[1:]])
        series.export(to, found, {"command": command, "commit": provenance.commit()})


@app.command
def plan(*, options: PlanOptions = PlanOptions()) -> None:
    """Say what training would take on this machine: steps, images, hours and memory, from a short probe.

    Nothing is trained, downloaded or kept. Example: `rfviz plan --preset imagenet --set micro_batch=64`
    """
    from rfviz.book import planning

    for line in planning.report(options.open().given, progress=True):
        _say(line)


@app.command
def presets() -> None:
    """List the presets."""
    for preset in PRESETS.values():
        _say(f"{preset.name:<12}{preset.summary} ({preset.where})")


def main() -> None:
    """Run the command line; bad input ends in one line on standard error and exit code 2."""
    process.prepare()
    try:
        _call(sys.argv[1:])
    except RfvizError as error:
        _stop(one_line(str(error)))
    except OSError as error:  # a full disk, a folder that may not be written
        _stop(f"{one_line(str(error))}. Earlier results are unchanged.")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, without loading torch
            raise
        _stop(f"{first_line(error)} Let fewer images through the network at a time, such as --set micro_batch=32.")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed again, it would put a traceback behind this line
        # what still draws layers of an explorer would be waited for, and files are written whole or not at all
        at_once = sys.argv[1:2] == ["explore"]
        _stop("interrupted. Call the same command again to go on; finished results are kept.", INTERRUPTED, at_once)


def _call(words: Sequence[str]) -> None:
    chain, *_ = app.parse_commands(words)
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False, verbose=False)
    except CycloptsError as error:
        said = one_line(str(error))
        if isinstance(error, MissingArgumentError) and error.argument and not error.keyword:
            said = f"{error.argument.name} is missing."
        raise RfvizError(f"{said[:1].lower()}{said[1:]} See `{' '.join(['rfviz', *chain])} --help`.") from error
    if "WORLD_SIZE" in os.environ and chain and command is not train:  # of torchrun
        from rfviz.training import distributed

        if distributed.started() > 1:
            raise RfvizError(f"torchrun is for 'rfviz train': run 'rfviz {chain[0]}' without it, in one process.")
    command(*bound.args, **bound.kwargs)


def _stop(said: str, code: int = 2, at_once: bool = False) -> None:
    sys.stderr.write(f"rfviz: {said}\n")
    if at_once:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
