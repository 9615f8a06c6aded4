"""The survey of torchvision's networks that the page shows is what the command gives."""

import json
from pathlib import Path

import pytest

from rfviz.errors import RfvizError
from rfviz.nets import families


def test_every_family_is_in_the_survey() -> None:
    assert sorted({row["network"] for row in families.kept()}) == families.smallest()
    assert {"resnet18", "vit_b_16", "swin_t", "efficientnet_b0", "squeezenet1_1"} <= set(families.smallest())
    for row in families.kept():
        assert tuple(row) == families.COLUMNS
        composed = row["receptive field"].removesuffix(" px"), row["seen by gradients"].removesuffix(" px")
        if row["known"] == "exact" and composed[1].isdigit():
            assert int(composed[1]) <= int(composed[0]), row


def test_the_table_has_a_row_for_every_network() -> None:
    table = {row["network"]: row for row in families.by_network(families.kept())}
    assert list(table) == families.smallest()
    assert list(table["resnet18"].values()) == ["resnet18", "conv1: 7 px", "layer2: 99 px", "layer4: 435 px"]
    assert table["swin_t"]["middle"].endswith("(measured)") and table["vit_b_16"]["middle"] == ""
    same, fit = map(int, families.filled(families.kept()).split(" of "))
    assert fit > 20 and same >= 0.9 * fit


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("resnet18", "swin_t"))]
)
def test_what_is_kept_is_what_is_found(name: str) -> None:
    assert families.survey([name]) == [row for row in families.kept() if row["network"] == name]


def test_export(tmp_path: Path) -> None:
    families.export([{"network": "a"}], tmp_path / "families.json")
    assert json.loads((tmp_path / "families.json").read_text()) == [{"network": "a"}]
    with pytest.raises(RfvizError, match="cannot be written"):
        families.export([], tmp_path / "families.json" / "inside.json")
