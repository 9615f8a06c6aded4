"""Networks that are trained and looked at side by side become, and show, what they do one after the other."""

import os
import signal

import pytest
import torch
from reference import TINY

from rfviz.errors import RfvizError
from rfviz.lab import results, together
from rfviz.lab.result import Result
from rfviz.lab.run import open_run, trained


def a_run(folder, monkeypatch, **overrides):
    monkeypatch.setenv("RFVIZ_RUNS", str(folder))
    run = open_run("smoke", **{**TINY, **overrides})
    run.progress = False
    return run


def look(runs):
    """What a page might gather."""
    (run,) = runs
    return [
        value
        for network in run.networks
        for value in (
            results.pooling(run, network.name).mean,
            results.maxima(run, network.name, "layer1.2").images,
            results.ablations(run, network.name)["maxpool"],
        )
    ]


def fatal(_):
    """What the system might do for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_two_processes_train_and_measure_what_one_does(tmp_path, monkeypatch):
    """Also when they are killed in the end; nobody waits for them."""
    side_by_side = a_run(tmp_path / "a", monkeypatch, threads=1)
    monkeypatch.setattr(together, "available_cores", lambda: 2)
    together.train([side_by_side], then=[[look, fatal]])
    one_by_one = a_run(tmp_path / "b", monkeypatch, threads=1)
    for name in ("resnet34", "plainnet34"):
        assert not side_by_side.is_to_be_trained(name)
        assert one_by_one.is_to_be_trained(name)
        ours, theirs = trained(side_by_side, name), trained(one_by_one, name)
        assert ours.weights.keys() == theirs.weights.keys()
        assert all(torch.equal(value, theirs.weights[key]) for key, value in ours.weights.items())
        told = [{key: value for key, value in entry.items() if key != "images_per_second"} for entry in ours.history]
        assert told == [
            {key: value for key, value in entry.items() if key != "images_per_second"} for entry in theirs.history
        ]
    expected = look([one_by_one])
    files = [path.name for path in sorted(one_by_one.results.glob("*.safetensors"))]
    assert [path.name for path in sorted(side_by_side.results.glob("*.safetensors"))] == files
    with monkeypatch.context() as patch:
        patch.setattr(Result, "_compute", None)  # all that is asked for is there
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(look([side_by_side]), expected, strict=True))


@pytest.mark.parametrize(("threads", "networks"), [(None, "resnet34,plainnet34"), (1, "resnet34")])
def test_what_needs_the_whole_machine_or_is_alone_waits_until_it_is_asked_for(threads, networks, tmp_path, monkeypatch):
    run = a_run(tmp_path, monkeypatch, threads=threads, networks=networks)
    monkeypatch.setattr(together.forks, "process", lambda *_, **__: pytest.fail("a process was started"))
    together.train([run])
    assert run.is_to_be_trained("resnet34")


def test_what_fails_side_by_side_says_why_where_it_is_asked_for(tmp_path, monkeypatch):
    run = a_run(tmp_path, monkeypatch, threads=1, learning_rate=1e12, epochs=4)
    together.train([run])
    assert run.is_to_be_trained("resnet34")
    with pytest.raises(RfvizError, match="the loss of resnet34 is not a finite number"):
        trained(run, "resnet34")
