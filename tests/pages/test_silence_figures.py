"""Figures of silent channels and of the stream draw what was measured."""

import numpy as np
import pytest
import torch
from test_predictions import network
from test_silence_tables import HISTORY, dose, responses, silence

from rfviz.pages import silence_figures, stream_figures


def lines(ax) -> list[np.ndarray]:
    return [line.get_ydata() for line in ax.get_lines()]


def test_room_to_fire_sorts_by_the_highest_value() -> None:
    found = silence(0.5, 0.0, 0.2)
    figure = silence_figures.room_to_fire({"resnet34": found})
    reach, highest, shift, _ = lines(figure.axes[0])
    assert highest.tolist() == [1, 1, -0.5]
    assert sorted(reach.tolist()) == pytest.approx(sorted(found.reach.tolist()))
    assert shift.tolist() == [-1, -1, -1]


def test_doses_and_single_channels() -> None:
    rates = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    figure = silence_figures.noise_doses({"resnet34": dose(2, 1)}, {"resnet34": responses(rates)})
    top, bottom = figure.axes
    assert [each[1] for each in lines(top)[:2]] == pytest.approx([1, 2])  # matched, tested
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["2 matched active", "2 inactive"]
    crosses = [line for line in bottom.get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in crosses] == [[0.0]]
    without = silence_figures.noise_doses({"resnet34": dose(2, 1, left=())}, {"resnet34": responses(rates)})
    assert len(without.axes[0].get_legend().get_texts()) == 1


def test_history_marks_channels_that_end_silent() -> None:
    figure = silence_figures.firing_history({"resnet34": HISTORY, "plainnet34": []})
    drawn = figure.axes[0].get_lines()
    assert [line.get_linestyle() for line in drawn] == ["-", "-", "--", "--"]
    assert drawn[1].get_ydata().tolist() == pytest.approx([0, 10, 20])
    assert [text.get_text() for text in figure.axes[1].texts] == ["not recorded"]


def test_shares_and_their_control() -> None:
    each = network(12)
    figure = stream_figures.written_shares(each.written, each.by_chance)
    assert len(figure.axes) == 3
    grey, ours = lines(figure.axes[0])
    np.testing.assert_allclose(ours, 100 * each.written["layer1.0"].share)
    np.testing.assert_allclose(grey, 100 * each.by_chance["layer1.0"].share)
    assert figure.axes[0].get_title().startswith("conv. layer 3")


def test_tested_channels_are_ringed() -> None:
    each = network(12)
    figure = stream_figures.ablations({"resnet34": each})
    late = figure.axes[1]
    dots = [line for line in late.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[0].get_ydata(), each.ablated["layer1.2"].mean(1))
    assert len(dots[1].get_ydata()) == 12
