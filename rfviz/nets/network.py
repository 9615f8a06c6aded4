"""What the networks of the ResNet family are called, how they are built, and which of their layers this book shows.

Nothing here needs torch: presets and the command line know networks by these objects, `rfviz.nets.models` builds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rfviz.errors import unknown

BLUE, ORANGE, GREEN, RED, PURPLE, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#000000"
SKY = "#56B4E9"
"""Colours of Okabe and Ito, which people with any colour vision can tell apart."""


@dataclass(frozen=True)
class Network:
    """A network of the ResNet family.

    Parameters
    ----------
    name : str
        As in torchvision, such as ``"resnet34"``.
    title : str
        As people write it.
    blocks : tuple of 4 int
        Number of blocks in layer1 to layer4.
    colour : str
        Of its lines and marks.
    skips : bool
        Whether blocks add their input to their result; without skips there are no projections either.
    bottleneck : bool
        Blocks of three convolutions instead of two, the last with four times the channels.
    channel : int
        The channel that is shown unless another is asked for.
    plain_stages : tuple of int
        Stages (1 to 4) whose blocks have no skips although the network has.
    control_of : str, optional
        The network of which this is a second one, trained more briefly, so as to classify as well as another: whether
        a difference between two networks is one of accuracy, it can tell.
    """

    name: str
    title: str
    blocks: tuple[int, int, int, int]
    colour: str
    skips: bool = True
    bottleneck: bool = False
    channel: int = 18
    plain_stages: tuple[int, ...] = ()
    control_of: str | None = None

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers of the analyses, by module name: the first pooling layer and every block."""
        stages = enumerate(self.blocks, start=1)
        return ("maxpool", *(f"layer{stage}.{block}" for stage, blocks in stages for block in range(blocks)))

    @cached_property
    def titles(self) -> dict[str, str]:
        """The paper's name of each layer: a block is called after its last convolution, counted in this network."""
        convolutions = 3 if self.bottleneck else 2
        blocks = enumerate(self.layers[1:], start=1)
        return {
            "conv1": "first convolution filter",
            "maxpool": "first pooling layer",
            **{layer: f"conv. layer {1 + convolutions * number}" for number, layer in blocks},
        }

    def layer_title(self, layer: str) -> str:
        """Return the paper's name of a layer, or its module name where the paper has none."""
        return self.titles.get(layer, layer)

    def last_block(self, stage: int) -> str:
        """Return the last block of layer1 to layer4."""
        return f"layer{stage}.{self.blocks[stage - 1] - 1}"

    @property
    def figure_layers(self) -> tuple[str, str, str]:
        """The layers that the paper shows: the first pooling layer, the first block, the last block of layer1."""
        return ("maxpool", "layer1.0", self.last_block(1))

    @property
    def stream(self) -> tuple[str, ...]:
        """The first pooling layer and the blocks of layer1: in a network of two-convolution blocks, the channels of the
        stem run on through them.
        """
        return self.layers[: 1 + self.blocks[0]]

    @property
    def shares_channels(self) -> bool:
        """Whether channel c of every layer of `stream` is one channel that the skips hand on from the stem."""
        return self.skips and not self.bottleneck and 1 not in self.plain_stages

    @property
    def readers(self) -> tuple[str, ...]:
        """The convolutions that read the channels of `stream`; the last exists only where there are skips."""
        blocks = (*self.layers[1 : 1 + self.blocks[0]], "layer2.0")
        return (*(f"{block}.conv1" for block in blocks), "layer2.0.downsample.0")

    @property
    def high_layers(self) -> tuple[str, str, str]:
        """The last blocks of the three higher stages."""
        return (self.last_block(2), self.last_block(3), self.last_block(4))

    @property
    def picture_layers(self) -> tuple[str, ...]:
        """The layers whose pictures are tested as stimuli; further up, fields are as large as the images."""
        return (*self.figure_layers, self.last_block(2))

    @property
    def relus(self) -> tuple[str, ...]:
        """The response after every ReLU, in order: the stem's, then in each block the inner ones and the output."""
        inner = ("relu1", "relu2") if self.bottleneck else ("relu1",)
        return (
            "conv1",
            *(name for block in self.layers[1:] for name in (*(f"{block}.{each}" for each in inner), block)),
        )


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet34", "ResNet34", (3, 4, 6, 3), BLUE),
        Network("plainnet34", "PlainNet34", (3, 4, 6, 3), RED, skips=False, channel=19),
        Network("resnet34-short", "ResNet34, short training", (3, 4, 6, 3), SKY, control_of="resnet34"),
        Network("resnet34-plain-layer1", "ResNet34 without skips in layer1", (3, 4, 6, 3), BLACK, plain_stages=(1,)),
        Network("resnet18", "ResNet18", (2, 2, 2, 2), GREEN),
        Network("plainnet18", "PlainNet18", (2, 2, 2, 2), ORANGE, skips=False),
        Network("resnet50", "ResNet50", (3, 4, 6, 3), PURPLE, bottleneck=True),
    )
}
"""The networks that a run can have, by name."""


def network(name: str) -> Network:
    """Return a network by name.

    Raises
    ------
    RfvizError
        If there is none of that name.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name]


def contrast(networks: Sequence[Network]) -> Network | None:
    """Return the first of some networks that differs from the very first in having skips or not, if there is one."""
    return next((each for each in networks if each.skips != networks[0].skips), None)


def accuracy_control(networks: Sequence[Network]) -> Network | None:
    """Return the control for accuracy of the first of some networks, if there is one."""
    return next((each for each in networks if each.control_of == networks[0].name), None)
