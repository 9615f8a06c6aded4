"""The series of trainings: its cells, their commands, and what is kept of them."""

import shlex

import pytest

from rfviz.book import cli
from rfviz.errors import RfvizError
from rfviz.lab import series


def test_the_cells_are_what_the_page_compares():
    cells = series.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    arms = {(cell.decay, cell.alive) for cell in cells}
    assert len({decay for decay, alive in arms if not alive}) >= 6 and any(alive for _, alive in arms)
    assert {(each.network, each.decay, each.alive, each.seed) for each in cells} == {
        (network, *arm, seed) for network in series.NETWORKS for arm in arms for seed in series.SEEDS
    }
    assert len(series.SEEDS) >= 3 and len(series.NETWORKS) == 3


@pytest.mark.parametrize("cell", series.cells()[:: len(series.cells()) // 7], ids=lambda cell: cell.name)
def test_a_command_makes_each_training(cell):
    run = cell.run()
    recipe = run.given.recipe(cell.network)
    assert (recipe.decay, recipe.alive, run.seed, run.given.networks) == (
        cell.decay,
        cell.alive,
        cell.seed,
        (cell.network,),
    )
    program, *words = shlex.split(cell.command)
    command, bound, _ = cli.app.parse_args(words, exit_on_error=False)
    assert program == "rfviz" and command is cli.train
    again = bound.kwargs["options"].open()
    assert (again.given, again.seed, again.folder) == (run.given, run.seed, run.folder)


def test_a_part_of_the_series_may_be_chosen():
    assert series.chosen() == series.cells()
    assert [cell.seed for cell in series.chosen("plainnet34-D6-seed")] == list(series.SEEDS)
    with pytest.raises(RfvizError, match=r"unknown training of the series 'resnet43-D6-seed0'.*resnet34-D6-seed0"):
        series.chosen("resnet43-D6-seed0")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / series.FILE).write_text('{"made by"')
    with pytest.raises(RfvizError, match=r"series\.json is damaged .*: remove it"):
        series.load(tmp_path)


def test_what_is_written_is_what_is_read(tmp_path):
    assert series.load(tmp_path) == {"made by": {}, "trainings": []}
    found = [{"network": "resnet34", "top1": 0.5}, {"network": "plainnet34", "top1": 0.25}]
    series.export(tmp_path, found, {"command": "rfviz series here"})
    assert series.load(tmp_path) == {"made by": {"command": "rfviz series here"}, "trainings": found}
