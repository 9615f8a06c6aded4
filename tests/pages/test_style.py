"""What the pages have in common: how pictures are scaled, and how figures draw them."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from rfviz.errors import RfvizError
from rfviz.kernels.tuning import centre_surround
from rfviz.nets.network import network
from rfviz.pages import style


def test_stretch_uses_one_gain_around_grey() -> None:
    deviation = torch.zeros(3, 4, 4)
    deviation[0, 1, 1], deviation[2, 3, 3] = 0.1, -0.05
    stretched, gain = style.stretch(deviation)
    assert gain == pytest.approx(5.0)
    torch.testing.assert_close(stretched, 0.5 + 5 * deviation)
    assert style.stretch(torch.zeros(3, 4, 4))[1] == 0.0


def test_a_red_spot_on_grey_stays_red_on_grey() -> None:
    """It has no surround, neither for the eye nor for the detector of opponent colours."""
    place = torch.arange(27) - 13
    spot = 0.02 * (place[:, None] ** 2 + place**2 < 30)
    picture, patch = torch.full((3, 27, 27), 0.5), torch.full((3, 27, 27), 0.5)
    picture[0] += spot
    shown, gain = style.stretch(picture - patch)
    assert gain == pytest.approx(25) and (shown[:, spot == 0] == 0.5).all()
    assert (shown[0, spot > 0] == 1).all() and (shown[1:, spot > 0] == 0.5).all()
    own, _ = style.stretch(picture - picture.mean((1, 2), keepdim=True))  # minus its own mean colour
    grey = torch.full((3,), 0.5)
    measured = centre_surround.measure(torch.stack([shown, own]), grey)
    assert measured.index[0] == 0 and not measured.colour_opponent[0]
    assert measured.index[1] > 0.05  # the painted surround opposes the spot


def test_what_was_never_counted_is_grey() -> None:
    shown = style.covered(torch.ones(3, 2, 2), torch.tensor([[0, 1], [2, 0]]))
    assert shown[0].tolist() == [[pytest.approx(style.NO_IMAGE), 1.0], [1.0, pytest.approx(style.NO_IMAGE)]]


def test_min_max_is_joint_over_colours() -> None:
    image = torch.tensor([[[0.0]], [[1.0]], [[4.0]]])
    assert style.min_max(image).flatten().tolist() == [0.0, 0.25, 1.0]
    assert style.min_max(torch.full((3, 2, 2), 7.0)).unique().tolist() == [0.5]
    assert style.min_max(1e-8 * torch.rand(3, 7, 7)).unique().tolist() == [0.5]  # rounding is no filter


RESNET = network("resnet34")


def test_places_are_those_that_the_explorer_has() -> None:
    first = style.place(RESNET, "layer1.2", 18)
    assert first == ("explorer.html#resnet34/layer1.2/18", "ResNet34, conv. layer 7, channel 18: in the explorer")
    addresses = {
        ("conv1", ""): "resnet34/maxpool/3", ("layer1.1", ""): "resnet34/layer1.1/3",
        ("layer4.2", ""): "resnet34/layer4.2/3", ("layer1.0", "reference-"): "reference-resnet34/layer1.0/3",
    }  # fmt: skip
    for (layer, explored), address in addresses.items():
        found = style.place(RESNET, layer, 3, explored)
        assert found and found.address == f"explorer.html#{address}"
        assert style.channel_link(RESNET, layer, 3, explored) == f'<a href="{found.address}">3</a>'
    for layer, there in (("layer2.0", ""), ("layer1.1", "imagenet-"), ("layer2.3", "imagenet-"), ("maxpool", None)):
        assert style.place(RESNET, layer, 3, there) is None
        assert style.channel_link(RESNET, layer, 3, there) == "3"


def drawn(figure: style.BookFigure) -> np.ndarray:
    """Return the output pixels of a figure, RGB `(H, W, 3)`."""
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))


def checks(side: int) -> Tensor:
    """Return a picture whose pixels take turns in two colours, which only a picture of this side has."""
    place = torch.arange(side)
    odd = ((place[:, None] + place) % 2).double()
    return torch.stack([odd, torch.full_like(odd, side / 255), 1 - odd])


def scale_of(picture: Tensor, pixels: np.ndarray) -> int:
    """Return how many output pixels wide and high each pixel of a picture of `checks` is, all of which must be so."""
    rgb = (255 * picture).round().byte().permute(1, 2, 0).numpy()
    y, x = np.nonzero((pixels[..., None, :] == rgb[0, :2]).all(-1).any(-1))
    found = pixels[y.min() : y.max() + 1, x.min() : x.max() + 1]
    k = len(found) // len(rgb)
    np.testing.assert_array_equal(found, rgb.repeat(k, 0).repeat(k, 1))
    return k


@pytest.mark.parametrize("height", [1.9, 2.95, 3.78])
@pytest.mark.parametrize("nested", [False, True])
def test_all_pixels_of_a_picture_are_equally_large(height: float, nested: bool) -> None:
    figure = style.BookFigure(height)
    pictures = [checks(side) for side in (7, 11, 27, 59, 111)]
    panels = figure.subfigures(1, 5, width_ratios=(1, 1.1, 1.2, 1.5, 1.6)) if nested else [figure] * 5
    for place, (panel, picture) in enumerate(zip(panels, pictures, strict=True)):
        axes = panel.subplots() if nested else panel.add_subplot(1, 5, place + 1)
        axes.set(title="a title", xlabel=f"side\n{len(picture[0])}", ylabel="y\n" * place)
        style.show(axes, picture)
    pixels = drawn(figure)
    assert pixels.shape[1] == style.WIDTH * style.DPI
    scales = [scale_of(picture, pixels) for picture in pictures]
    assert scales[0] > scales[1] > scales[2] > scales[3] > 1 == scales[4]


def test_pictures_side_by_side_in_the_same_axes_are_equally_large_too() -> None:
    figure = style.BookFigure(2.0)
    panels = [*figure.subfigures(1, 3)]
    for panel, side in zip(panels, (11, 27, 59), strict=True):
        axes = panel.subplots()
        style.show(axes, checks(side), corner=(3, 0))
        style.show(axes, checks(side + 1), corner=(side + 4, 2))
        axes.set(xlim=(-1, 2 * side + 8), ylim=(side + 5, -1), aspect="equal")
    pixels = drawn(figure)
    for side in (11, 27, 59):
        assert scale_of(checks(side), pixels) == scale_of(checks(side + 1), pixels) >= 2


def test_a_picture_larger_than_its_place_is_reduced_evenly() -> None:
    """Every other pixel of a reduced checkerboard would be one of its colours; smoothed, it is nearly their mean."""
    figure = style.BookFigure(1.0)
    style.show(figure.subplots(), checks(250))
    pixels = drawn(figure)
    inside = pixels[60:100, 560:600].reshape(-1, 3)
    assert (abs(inside.astype(int) - [127, 250, 127]).max(0) < 40).all()


def test_all_type_of_a_figure_has_one_size() -> None:
    figure = style.BookFigure(3.0)
    for panel in figure.subfigures(1, 2):
        panel.suptitle("above", fontsize=20)
        axes = panel.subplots()
        axes.plot([0, 1], [0, 1e-9], label="a line")
        axes.set_title("a title", fontsize=6)
        axes.legend()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=30)
    drawn(figure)
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
    assert sizes == {style.TYPE}


def links_of(figure: style.BookFigure) -> tuple[np.ndarray, dict[str, tuple[float, ...]]]:
    """Return the output pixels of a figure, and left, top, right and bottom of its links, in these, by address."""
    with Image.open(io.BytesIO(figure._repr_png_())) as file:
        said, pixels = json.loads(file.info.get(style.LINKS, "[]")), np.asarray(file.convert("RGB"))
    height, width = pixels.shape[:2]
    links = [style.Link(*each) for each in said]
    return pixels, {
        each.address.partition("#")[2]: (
            each.left * width, each.top * height, (each.left + each.width) * width, (each.top + each.height) * height
        )
        for each in links
    }  # fmt: skip


def where(side: int, pixels: np.ndarray) -> list[int]:
    """Return left, top, right and bottom of all that has the colours of `checks`."""
    rgb = (255 * checks(side)).round().byte().permute(1, 2, 0).numpy()
    y, x = np.nonzero((pixels[..., None, :] == rgb[0, :2]).all(-1).any(-1))
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize("height", [1.9, 2.95])
def test_a_link_lies_where_its_pictures_are(height: float) -> None:
    """Of one picture that fills its axes, of several in the same axes, and of two in axes of their own."""
    figure = style.BookFigure(height)
    panels, sides = figure.subfigures(1, 4, width_ratios=(1, 1.4, 1, 1)), (7, 11, 27, 27)
    for channel, (panel, side) in enumerate(zip(panels, sides, strict=True)):
        axes, of = panel.subplots(), style.place(RESNET, "maxpool", min(channel, 2))
        axes.set(title="a title", ylabel="y\n" * channel)
        for corner in [(0, 0), (12, 1), (2, 13)] if side == 11 else [None]:
            style.show(axes, checks(side), corner=corner, of=of)
        if side == 11:
            axes.set(xlim=(-1, 24), ylim=(25, -1), aspect="equal")
    pixels, found = links_of(figure)
    assert list(found) == [f"resnet34/maxpool/{channel}" for channel in range(3)]
    for box, side in zip(found.values(), sides, strict=False):
        assert box == pytest.approx(where(side, pixels), abs=0.1)


def test_empty_axes_and_points_are_links_too() -> None:
    figure = style.BookFigure(2.0)
    left, right = figure.subplots(1, 2)
    style.show(left, None, of=style.place(RESNET, "layer1.0", 5))
    x, y = [1.0, 2.0, 5.0, 3.0], [4.0, float("nan"), 9.0, 7.0]
    right.plot(x[:1], y[:1], "s", color="#123456", markersize=4, markeredgewidth=0)
    style.link_points(right, x, y, RESNET, "layer1.0", [8, 0, 3, 4])
    right.set(xlim=(0, 6), ylim=(0, 10))
    pixels, found = links_of(figure)
    assert list(found) == [f"resnet34/layer1.0/{channel}" for channel in (5, 8, 3, 4)]
    at = np.argwhere((pixels == [0x12, 0x34, 0x56]).all(-1)).mean(0)[::-1] + 0.5
    reach = style.REACH
    assert found["resnet34/layer1.0/8"] == pytest.approx([*(at - reach), *(at + reach)], abs=0.6)
    assert found["resnet34/layer1.0/5"][2] < found["resnet34/layer1.0/8"][0]


def test_what_has_no_place_has_no_link() -> None:
    figure = style.BookFigure(2.0)
    style.show(figure.subplots(), checks(7), of=style.place(RESNET, "layer2.0", 5))
    assert links_of(figure)[1] == {}


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        (["", "a = 1  # one\nb = 2", "import os"], None),
        (["", "a = 1\nb = 2", "# Parameters\na = 3\nb = {'c': 4}\n", "c = a"], None),
        (["", "a = 1\nb = 2", "# Parameters\na = 3\nbb = 4\n"], "bb"),
        ([], None),
    ],
)
def test_parameters_that_a_notebook_does_not_have_are_refused(cells, wrong, monkeypatch) -> None:
    monkeypatch.setattr(style, "get_ipython", lambda: SimpleNamespace(user_ns={"In": cells}))
    if wrong is None:
        style.check_parameters()
    else:
        with pytest.raises(RfvizError, match=f"unknown parameter of this notebook '{wrong}'.*'b'"):
            style.check_parameters()


def test_outside_of_a_notebook_there_are_no_parameters() -> None:
    style.check_parameters()


# -- how a page was made -----------------------------------------------------------------------------------------------


NASTY = {
    "image": "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>": "name",
    "end": "</td></tr></table></details><b>out</b>",
    "quotes": "\"double\" & 'single' &lt;",
}


def test_table_escapes_what_it_shows() -> None:
    shown = style.HowMade(NASTY)._repr_html_()
    page = BeautifulSoup(shown, "html.parser")
    assert {tag.name for tag in page.find_all(True)} == {"details", "summary", "table", "tr", "th", "td"}
    rows = {row.th.get_text(): row.td.get_text() for row in page.find_all("tr")}
    assert rows == NASTY  # to the reader, exactly what was given
    assert "<img" not in shown and "<script" not in shown


def test_table_is_folded_and_shows_every_fact() -> None:
    page = BeautifulSoup(style.HowMade({"seed": 0, "list": [1, 2], "nothing": None})._repr_html_(), "html.parser")
    assert page.details.summary.get_text() == "How this page was made"
    assert not page.details.has_attr("open")
    assert [cell.get_text() for cell in page.find_all("td")] == ["0", "[1, 2]", "None"]
    assert all(head["scope"] == "row" for head in page.find_all("th"))


def test_table_as_text() -> None:
    assert repr(style.HowMade({"seed": 0, "preset": "quick"})) == "seed: 0\npreset: quick"


def test_a_wall_of_text_becomes_points():
    assert style.answer(["One.", "Two."]).data == "**Answer.** One. Two."
    long = ["a" * style.WALL + ".", "b."]
    assert style.points(long[:1]).data == long[0]
    assert style.answer([*long, ""]).data.splitlines() == ["**Answer.** ", "", f"- {long[0]}", "- b."]
    linked = [f'<a href="{"a" * style.WALL}">one</a>,', "two."]
    assert style.points(linked).data == " ".join(linked)  # what is not read does not count
