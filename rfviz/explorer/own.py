"""Networks and images of one's own in the explorer: `explore`, and where its layers come from."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.models import ResNet

from rfviz.errors import RfvizError, one_line, unknown
from rfviz.explorer.atlas import Drawn, draw
from rfviz.explorer.facts import LayerFacts
from rfviz.explorer.sources import check, layer_row, manifest, with_places
from rfviz.images import batches, folders, whitening
from rfviz.images.data import Evaluation, Indexed
from rfviz.images.whitening import Whitening
from rfviz.kernels import maximization, responses, tuning
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.tuning import spots
from rfviz.lab.result import Reader, result
from rfviz.nets import graph, layer_table, receptive_field, zoo
from rfviz.nets.cone import Cone
from rfviz.nets.models import ResidualNet, recognize
from rfviz.nets.receptive_field import Known
from rfviz.nets.zoo import Loaded
from rfviz.storage.digests import digest, tensor_digest

MEANS = 2**30
"""Bytes that the means of a layer may take to be computed."""

DRIVEN = 2**21
"""Pixels that the maximization images of a layer may have together to be computed: more take minutes."""

TUNED = 128
"""Receptive fields up to which gratings and spots are shown to a layer, px."""

CLEAR: dict[str, Any] = {"steps": 64, "learning_rate": 0.1}
"""Of the clear pictures: half the steps of twice the rate of the book's. In a ResNet18 trained on ImageNet the picture
of the median channel drives it as strongly (1.01 times as much in maxpool, 1.00 in layer1.1)."""

FORBIDDEN = "/&#%"
"""What names of networks may not have in them: they stand in addresses."""


class NetSource(Reader):
    """The layers of any networks, over any images; each is computed when it is first looked at, and kept.

    Parameters
    ----------
    nets : dict from str to nn.Module or Loaded
    images : Tensor (N, 3, H, W), data set, list of images, or path of a folder
        RGB in [0, 1], or PIL images; a folder is read as `rfviz.images.folders.photographs` says.
    layers : sequence of str, optional
        By default some that give an overview (`rfviz.nets.layer_table.shown`); ``"all"`` for all of maps.
    preprocess : Whitening, transform, str or pair, optional
        What normalises the images, just before the networks; see `rfviz.images.whitening.of`. By default what the
        weights of a network expect, where that is known.
    size : int, optional
        Side of the squares that are cut from images of a folder, px; by default what the weights of the first network
        expect, or else 224 where the network takes that.
    folder : Path, optional
        Where results are kept, to be there the next time; a temporary one by default.
    top_k, strongest, steps : int
        See `rfviz.kernels.responses.collect` and `rfviz.kernels.maximization.maximize`. Of the strongest neurons,
        `top_k` may be of one image.
    strict, progress : bool
        Refuse broken images instead of leaving them out; show progress bars.

    Raises
    ------
    RfvizError
        If a layer is unknown, the images cannot be read or there are none, or a name has one of ``/&#%`` in it.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module | Loaded],
        images: Tensor | Indexed | str | Path,
        layers: Sequence[str] | None = None,
        preprocess: Any = None,
        *,
        size: int | None = None,
        folder: Path | None = None,
        top_k: int = 16,
        strongest: int = 256,
        steps: int = 31,
        strict: bool = False,
        progress: bool = False,
    ):
        for name in nets:
            if not name or set(name) & set(FORBIDDEN):
                raise RfvizError(f"a network is called {name!r}: give it a name without /, &, # and %.")
        if size is not None and size < 1:
            raise RfvizError(f"size is {size}: images must be cut to at least 1 px.")
        loaded = {name: net if isinstance(net, Loaded) else Loaded(net, name) for name, net in nets.items()}
        self.nets = {name: graph.unwrapped(each.net) for name, each in loaded.items()}
        self.top_k, self.strongest, self.steps, self.progress = top_k, strongest, steps, progress
        kinds = {name: f"layer of {name}" if len(nets) > 1 else "layer" for name in nets}
        self._layers = {name: _chosen(net, layers, kinds[name]) for name, net in self.nets.items()}
        self.preprocess = {name: _preprocess(each, preprocess) for name, each in loaded.items()}
        if folder is not None:
            folder = Path(folder).expanduser()
            check_folder(folder, images)
        first = next(iter(loaded.values()))
        crop = size if size is not None else first.crop or layer_table.natural_side(first.net)
        resize = round(crop * (first.resize or 1) / (first.crop or 1)) if first.crop else crop
        self.images = _read(images, resize, crop, graph.in_channels(first.net), strict, progress)
        self.collected: dict[tuple[str, str], LayerResponses] = {}
        """Responses of layers that are about to be drawn."""
        self._digests: dict[str, str] = {}
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="rfviz-")
            folder = Path(self._temporary.name)
        super().__init__(folder)

    @property
    def image_folder(self) -> folders.FolderImages | None:
        """The images as they lie in a folder, if they do."""
        found = self.images.source if isinstance(self.images, Evaluation) else None
        return found if isinstance(found, folders.FolderImages) else None

    @property
    def identity(self) -> list[Any]:
        """See `rfviz.lab.result.Reader`."""
        return ["own", list(self.nets)]

    def told(self, kind: str, name: str, *, compute: bool) -> str | None:
        """See `rfviz.lab.result.Reader`."""
        if kind not in self._digests and kind == "images":
            self._digests[kind] = _fingerprint(self.images)
        if kind == "network" and name in self.nets and name not in self._digests:
            state = {key: value for key, value in self.nets[name].state_dict().items() if isinstance(value, Tensor)}
            self._digests[name] = digest(
                [tensor_digest(state), repr(self.nets[name]), str(graph.trace(self.nets[name]).graph)]
            )
        of_kind = {
            "images": lambda: self._digests["images"],
            "network": lambda: self._digests.get(name),
            "preprocess": lambda: digest(self.preprocess[name].to_json()) if name in self.preprocess else None,
            "option": lambda: digest(getattr(self, name, None)),
        }
        return of_kind[kind]() if kind in of_kind else None

    def manifest(self) -> dict[str, Any]:
        """See `rfviz.explorer.sources.Source`."""
        rows = []
        for model, layers in self._layers.items():
            titles = _titles(self.nets[model])
            rows += [
                layer_row(
                    model, layer, f"{layer}, {titles[layer]}" if layer in titles else layer, channels, known.field
                )
                for layer, (channels, known) in layers.items()
            ]
        return manifest({model: model for model in self.nets}, rows, f"{rows[0]['model']}/{rows[0]['key']}/0")

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `rfviz.explorer.sources.Source`."""
        check(model, layer, self._layers)
        return own_layer(self, model, layer)

    def net(self, model: str) -> tuple[nn.Module, Whitening]:
        """Return a network, and what its images are normalised with."""
        self.read(f"network {model}")
        self.read(f"preprocess {model}")
        return self.nets[model], self.preprocess[model]

    def known(self, model: str, layer: str) -> tuple[int, Known]:
        """Return the number of channels of a layer and its receptive field."""
        return self._layers[model][layer]

    def option(self, name: str) -> int:
        """Return one of the options."""
        self.read(f"option {name}")
        return getattr(self, name)


def check_folder(folder: Path, images: Any = None) -> None:
    """Raise RfvizError if nothing can be written to a folder, which need not be there, before anything is computed.

    Nor may it lie in the folder of the images: the next time, what is written would be taken for some of them.
    """
    if isinstance(images, (str, Path)) and folder.resolve().is_relative_to(Path(images).expanduser().resolve()):
        raise RfvizError(f"{folder} lies in the folder of the images, {images}: name one outside of it.")
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise RfvizError(f"{there} is a file: name a folder to write to.")
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise RfvizError(f"{folder} cannot be written to ({error}): free some space or name another folder.") from error


def _chosen(net: nn.Module, layers: Sequence[str] | None, kind: str) -> dict[str, tuple[int, Known]]:
    """Return channels and receptive field of the layers that are to be seen."""
    net = graph.unwrapped(net)
    rows = {row.name: row for row in layer_table.layers(net)}
    names = layer_table.shown(net) if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if names == ["all"]:
        names = _distinct(net, [name for name, row in rows.items() if row.positions > 1])
    for name in names:
        if name not in rows:
            if name in graph.names(graph.trace(net)):
                receptive_field.known(net, name, measure=False)  # says why nothing can be read there
            raise unknown(kind, name, rows)
    known = receptive_field.known(net, names)
    return {name: (rows[name].channels, known[name]) for name in names}


def _distinct(net: nn.Module, names: Sequence[str]) -> list[str]:
    """Return one name for each response: several may mean the same, such as a block and the ReLU that ends it."""
    traced, modules, titles = graph.trace(net), dict(net.named_modules()), _titles(net)
    of_nodes: dict[Any, list[str]] = {}
    for name in names:
        of_nodes.setdefault(graph.find(traced, name), []).append(name)

    def rank(name: str) -> tuple[bool, bool, int]:
        module = modules.get(name, modules.get(name.rstrip("0123456789")))
        return name not in titles, isinstance(module, nn.ReLU), len(name)

    return [min(same, key=rank) for same in of_nodes.values()]


def _preprocess(loaded: Loaded, given: Any) -> Whitening:
    """Return what normalises the images of a network; say so where that is not certain."""
    if given is not None:
        return whitening.of(given)
    if loaded.preprocess is not None:
        return loaded.preprocess
    if not loaded.random:
        whitening.warn_without(zoo.expected_preprocess(loaded.net), loaded.name)
    return whitening.NONE


def _read(images: Any, resize: int, crop: int, colours: int, strict: bool, progress: bool) -> Tensor | Indexed:
    if isinstance(images, (str, Path)):
        return Evaluation(folders.photographs(images, resize, crop, colours=colours, strict=strict, progress=progress))
    if not batches.is_indexed(images):
        raise RfvizError(
            f"images are a {type(images).__name__}, which passes by once: give a tensor, a data set (loader.dataset), "
            "a list of images, or the path of a folder."
        )
    if not len(images):
        raise RfvizError("there are no images to explore: give at least one.")
    return images if isinstance(images, (Tensor, Evaluation)) else batches.AsTensors(images, colours)


def _fingerprint(images: Any) -> str:
    told = getattr(images, "fingerprint", None)
    if told is not None:
        return str(told)
    if isinstance(images, Tensor):
        return tensor_digest({"images": images})
    return digest([tensor_digest({"image": batches.image_of(images[number])}) for number in range(len(images))])


def _titles(net: nn.Module) -> dict[str, str]:
    """Return the paper's names of the layers of a ResNet or PlainNet, counted in it; none of another network's."""
    network = recognize(net.state_dict()) if isinstance(net, (ResidualNet, ResNet)) else None
    return {layer: network.layer_title(layer) for layer in network.layers} if network else {}


def size_of_means(source: NetSource, model: str, layer: str) -> int:
    """Return how many bytes the means of a layer take (`rfviz.kernels.responses.collect`); 0 if they take too many."""
    channels, known = source.known(model, layer)
    size = 20 * channels * known.field.size**2
    return size if size <= MEANS else 0


def collect(source: NetSource, model: str, layers: Sequence[str], checkpoint: Path | None) -> dict[str, LayerResponses]:
    """Return the responses of some layers, all with means or all without."""
    net, preprocess = source.net(model)
    means = size_of_means(source, model, layers[0]) > 0
    few, many = source.option("top_k"), source.option("strongest") if means else None
    return responses.collect(
        net, source.images, layers, few, mean_stimulus=means, preprocess=preprocess, strongest=many,
        strongest_per_image=few, checkpoint=checkpoint, discard_unusable=True, progress=source.progress,
    )  # fmt: skip


@result
def own_layer(source: NetSource, model: str, layer: str) -> Drawn:
    """Return what is known of a layer of a network of one's own, drawn for a browser."""
    source.read("images all")
    net, preprocess = source.net(model)
    channels, known = source.known(model, layer)
    source.option("top_k")  # also of what was collected for all layers at once
    if size_of_means(source, model, layer):
        source.option("strongest")
    found = source.collected.pop((model, layer), None)
    if found is None:
        found = collect(source, model, [layer], source.scratch())[layer]
    size, cost = known.field.size, channels * known.field.size**2
    described = LayerFacts(source.images, found, None, preprocess, how=known.how)
    alone = stands_alone(net, layer)
    if alone and cost <= DRIVEN:
        driven = maximization.maximize(net, layer, steps=source.option("steps"))
        described = described._replace(maxima=driven, objective=maximization.objective_of(net, layer))
    if alone and graph.in_channels(net) == 3:
        if 4 * cost <= DRIVEN:
            pictures = maximization.maximize(net, layer, setting="clear", units=found, preprocess=preprocess, **CLEAR)
            described = described._replace(clear=pictures)
        if size <= TUNED:
            described = described._replace(
                orientation=tuning.measure(net, layer, preprocess=preprocess),
                colour=spots.measure(net, layer, preprocess=preprocess),
            )
    described = described._replace(filters=_first_filters(net, layer, channels))
    drawn = draw(with_places(described, net, layer, borders=False))
    if folder := source.image_folder:
        for each in drawn.facts["sources"]:
            each["file"] = one_line(folder.files[each["image"]])
    return drawn


def stands_alone(net: nn.Module, layer: str) -> bool:
    """Tell whether a neuron of a layer can be looked at without the others; the rest is seen through photographs."""
    try:
        Cone(net, layer)
    except RfvizError:
        return False
    return True


def _first_filters(net: nn.Module, layer: str, channels: int) -> Tensor | None:
    """Return the filters that the channels of a layer are, where there is but one convolution of RGB before them."""
    traced = graph.trace(net)
    before = graph.ancestors(graph.find(traced, layer))
    found = [module for node in before if isinstance(module := graph.module_of(traced, node), nn.Conv2d)]
    if len(found) != 1 or found[0].weight.shape[:2] != (channels, 3):
        return None
    return found[0].weight.detach().cpu()
