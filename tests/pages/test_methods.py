"""The figures and the table of the methods are the geometry that the networks have."""

from matplotlib.axes import Axes

from rfviz.nets import models
from rfviz.pages import methods


def test_the_table_gives_the_layers_of_the_papers_figures() -> None:
    table = methods.layers_table(models.resnet34(1, 2))
    assert table.index.tolist() == ["conv1", "maxpool", "layer1.0", "layer1.2"]
    assert table.loc["layer1.2"].tolist() == ["conv. layer 7", "59 px", "4 px", "−29 px"]


def test_figure_1_frames_are_the_composed_fields() -> None:
    figure = methods.receptive_field_overview()
    frames = [[patch.get_width() for patch in axes.patches if not patch.get_fill()] for axes in figure.axes]
    assert frames == [[3, 5], [3], []]


def widths(net: models.ResidualNet) -> list[dict[str, int]]:
    figure = methods.receptive_fields_to_scale(net)
    return [{patch.get_label(): patch.get_width() for patch in axes.patches} for axes in figure.findobj(Axes)]


def test_figure_s1_is_to_scale() -> None:
    inside, larger = widths(models.resnet34(1, 2))
    assert inside == {
        "first convolution filter: 7 px": 7, "first pooling layer: 11 px": 11, "conv. layer 3: 27 px": 27,
        "conv. layer 7: 59 px": 59, "conv. layer 15: 179 px": 179,
    }  # fmt: skip
    assert larger == {
        "conv. layer 15: 179 px": 179, "conv. layer 17: 227 px": 227, "conv. layer 27: 547 px": 547,
        "conv. layer 33: 899 px": 899,
    }  # fmt: skip


def test_figure_s1_of_another_network_has_its_titles() -> None:
    inside, larger = widths(models.build("resnet18", 1, 2))
    assert max(inside.values()) <= 224 < max(larger.values())
    assert "conv. layer 5: 43 px" in inside
