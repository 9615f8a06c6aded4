"""Table 1: numbers from the experiment, dashes where there is none, words that follow the numbers."""

import math

import pytest
import torch

from rfviz.kernels.inactivity import Effect, NoiseEffect
from rfviz.pages import noise_tables


def effect(*losses: float) -> Effect:
    values = torch.tensor(losses, dtype=torch.float64)
    return Effect((1,), values, -values / 10)


def experiment(inactive: tuple[int, ...] = (), /, **effects: Effect) -> NoiseEffect:
    return NoiseEffect(inactive, 64, 100, 1.0, 0.5, effects)


CONTROLS = {"least_active": effect(0.1, 0.2), "random_active": effect(0.3, 0.5)}


def test_noise_table_holds_means_errors_and_the_papers_numbers() -> None:
    found = {
        "resnet34": [experiment((3, 9), inactive=effect(1.0, 2.0, 3.0), random_inactive=effect(0.1, 0.1), **CONTROLS)],
        "plainnet34": [experiment(**CONTROLS)],
    }
    table = noise_tables.noise_table(found).set_index(["model", "noise"])
    row = table.loc["resnet34", "inactive"]
    assert (row["inactive"], row["channels"], row["noisy"]) == (2, 64, 2)
    assert row["dL"] == pytest.approx(2.0)
    assert row["dL_error"] == pytest.approx(1 / math.sqrt(3))
    assert row["dtop1"] == pytest.approx(-0.2)
    assert row["paper_dL"] == 1.26962
    assert table.loc[("resnet34", "least_active"), "noisy"] == 13
    assert table.loc["plainnet34", "inactive"][["dL", "dtop1"]].isna().all()
    assert table.loc[("plainnet34", "random_inactive"), "paper_dL"] == -8.34465e-7


def test_table_1_has_dashes_where_nothing_is_inactive() -> None:
    shown = noise_tables.table1({"resnet34": [experiment(**CONTROLS)]}).reset_index()
    assert shown["inactive"].tolist() == ["0 of 64 (paper: 13 of 64)"] * 4
    assert shown["ΔL (nats)"].tolist() == ["–", "–", "+0.15 ± 0.05", "+0.4 ± 0.1"]


def test_summary_follows_the_numbers() -> None:
    none = experiment(**CONTROLS)
    some = experiment((1, 2), inactive=effect(1.0, 1.1), random_inactive=effect(0.1, 0.1), **CONTROLS)
    unsure = experiment((1,), inactive=effect(-1.0, 1.1), random_inactive=effect(0.1, 0.1), **CONTROLS)
    lower = experiment((1,), inactive=effect(-1.0, -1.1), random_inactive=effect(0.1, 0.1), **CONTROLS)
    text = noise_tables.noise_summary({"resnet34": [none], "plainnet34": [none]})
    assert "Neither network has an inactive channel" in text
    text = noise_tables.noise_summary({"resnet34": [some], "plainnet34": [none]})
    assert "As in the paper" in text
    assert "In ResNet34, noise in the 2 inactive channels raises the loss by 1.05 nats." in text
    assert "PlainNet34 has no inactive channel" in text
    text = noise_tables.noise_summary({"resnet34": [unsure], "plainnet34": [lower]})
    assert "Unlike in the paper" in text
    assert "In ResNet34, noise in the one inactive channel does not change the loss measurably." in text
    assert "In PlainNet34, noise in the one inactive channel lowers the loss by 1.05 nats." in text


def test_one_noise_seed_gives_no_error_and_no_verdict() -> None:
    found = {
        "resnet34": [experiment((1,), inactive=effect(1.0), random_inactive=effect(0.1))],
        "plainnet34": [experiment()],
    }
    assert noise_tables.table1(found)["ΔL (nats)"].iloc[0] == "+1"
    assert "cannot be said" in noise_tables.noise_summary(found)


# -- several trained networks -----------------------------------------------------------------------------------------

REPLICAS = {
    "resnet34": [
        experiment((1, 2, 3), inactive=effect(1.0, 1.2), random_inactive=effect(0.1, 0.3), **CONTROLS),
        experiment((4,), inactive=effect(3.0, 3.2), random_inactive=effect(0.4, 0.4), **CONTROLS),
        experiment(**CONTROLS),
    ],
    "plainnet34": [experiment(**CONTROLS)] * 3,
}


def test_several_networks_give_mean_and_standard_deviation_over_them() -> None:
    table = noise_tables.noise_table(REPLICAS).set_index(["model", "noise"])
    row = table.loc["resnet34", "inactive"]
    assert row["inactive"] == pytest.approx(4 / 3)
    assert (row["fewest"], row["most"], row["networks"], row["measured"]) == (0, 3, 3, 2)
    assert row["dL"] == pytest.approx((1.1 + 3.1) / 2)
    assert row["dL_error"] == pytest.approx(math.sqrt(2))  # of 1.1 and 3.1
    assert row["dtop1"] == pytest.approx(-0.21)
    assert table.loc[("resnet34", "least_active"), "dL_error"] == pytest.approx(0)
    assert table.loc[("plainnet34", "inactive"), "measured"] == 0


def test_table_1_of_several_networks_gives_their_range() -> None:
    shown = noise_tables.table1(REPLICAS).reset_index()
    assert shown["inactive"][0] == "1.33 (0 to 3, 3 networks) of 64 (paper: 13 of 64)"
    assert shown["noise in"][0].endswith("[2 of 3 networks]")
    assert shown["ΔL (nats)"][0] == "+2 ± 1"
    assert shown["ΔL (nats)"][4] == "–"


def test_one_network_of_several_has_no_spread() -> None:
    replicas = [
        experiment((1,), inactive=effect(1.0, 1.2), random_inactive=effect(0.1, 0.3), **CONTROLS),
        experiment(**CONTROLS),
    ]
    shown = noise_tables.table1({"resnet34": replicas}).reset_index()
    assert shown["noise in"][0].endswith("[1 of 2 networks]")
    assert shown["ΔL (nats)"].tolist() == ["+1.1", "+0.2", "+0.15", "+0.4"]


def test_summary_of_several_networks_follows_the_numbers() -> None:
    text = noise_tables.noise_summary(REPLICAS)
    assert "As in the paper, ResNet34 has more inactive channels than PlainNet34 for 2 of 3 seeds." in text
    # 1.1 and 3.1: the 95 % interval of the mean of two, 2.1 ± 12.7, holds 0
    assert (
        "In ResNet34, noise in the inactive channels does not change the loss measurably (2 of 3 networks have any)."
        in text
    )
    assert "PlainNet34 never has an inactive channel" in text
    apart = [experiment((1,), inactive=effect(loss, loss)) for loss in (-1.0, 1.5)]
    text = noise_tables.noise_summary({"resnet34": apart, "plainnet34": apart})
    assert "does not change the loss measurably (2 of 2 networks have any)" in text
    assert "Unlike in the paper, ResNet34 does not have more" in text
    sure = [experiment((1,), inactive=effect(loss, loss)) for loss in (1.0, 1.1, 1.2)]
    text = noise_tables.noise_summary(
        {
            "resnet34": [*sure[:2], experiment()],
            "plainnet34": [experiment((3,), inactive=effect(1.0, 1.0)), experiment(), experiment()],
        }
    )
    assert "ResNet34 has more inactive channels than PlainNet34, as in the paper, only for 1 of 3 seeds." in text
    text = noise_tables.noise_summary({"resnet34": sure, "plainnet34": [experiment()] * 3})
    assert "raises the loss by 1.1 nats (3 of 3 networks have any)" in text
