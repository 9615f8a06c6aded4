"""A run computes everything once, keeps it, and leads to the same whoever asks again."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from rfviz.errors import RfvizError
from rfviz.images import photographs, whitening
from rfviz.kernels import (
    controls,
    effective,
    identify,
    intervene,
    maximization,
    noise,
    responses,
    silent,
    stream,
    tuning,
)
from rfviz.kernels.controls import calibrated
from rfviz.kernels.tuning import gabor, spots
from rfviz.lab import presets, results
from rfviz.lab import run as runs
from rfviz.lab.run import Run, data_whitening, open_run, trained
from rfviz.nets import models
from rfviz.nets.network import NETWORKS
from rfviz.storage import lock
from rfviz.storage.digests import tensor_digest
from rfviz.storage.files import load_tensors, save_tensors
from rfviz.training import trainer
from rfviz.training.trainer import evaluate

PAIR = ("resnet34", "plainnet34")
SHORT = {
    "epochs": 2, "top_k": 4, "maximization_steps": 2, "noise_seeds": 2, "disturbed_images": 8, "picture_channels": 3,
}  # fmt: skip
TINY = {**SHORT, "repeats": 8, "classes": 3, "crop": 48, "tile": 96}
LAYERS = ("maxpool", "layer1.0")
KERNELS = (
    (trainer, "train"), (responses, "collect"), (maximization, "maximize"), (noise, "noise_effect"),
    (whitening, "fit"), (tuning, "measure"), (gabor, "fit"), (spots, "measure"), (silent, "silence"),
    (noise, "noise_dose"), (stream, "written"), (intervene, "loss_changes"),
    (effective, "effective_fields"), (identify, "identify"),
)  # fmt: skip


def opened(preset: str = "smoke", seed: int = 0, **overrides) -> Run:
    run = open_run(preset, seed, **overrides)
    run.progress = False
    return run


def everything(run: Run, network: str, deep: bool = True) -> dict:
    """All that a run computes for one network, or without `deep` what does not take long."""
    found = {
        "whitening": run.whitening(network),
        "weights": run.net(network).state_dict(),
        "history": results.history(run, network),
        "stimuli": results.stimuli(run, network),
        "maxima": results.maxima(run, network, "maxpool"),
        "pooling": results.pooling(run, network),
        "noise": results.noise_effect(run, network),
        "orientation": results.orientation(run, network, "maxpool"),
        "orientation by chance": results.orientation(run, network, "maxpool", "random weights", 1),
        "colour": results.colour(run, network, "maxpool"),
        "sparsity": results.sparsity(run, network),
    }
    if not deep:
        return found
    return found | {
        "gabors": results.gabors(run, network),
        "gabors by chance": results.gabors(run, network, "random weights"),
        "handed on": results.handed_on(run, network, "random weights"),
        "halves": results.halves(run, network),
        "stimuli by chance": results.stimuli(run, network, "random weights"),
        "maxima by chance": results.maxima(run, network, "maxpool", "random weights"),
        "colour of filters": results.colour(run, network, "conv1"),
        "silence": results.silence(run, network),
        "evidence": results.evidence(run, network),
        "fields": results.effective_fields(run, network, "layer2.3"),
        "fields by chance": results.effective_fields(run, network, "layer2.3", "random weights"),
        "identification": results.identification(run, network, "maxpool"),
        "identification higher up": results.identification(run, network, "layer2.3"),
    }


def assert_equal(a, b, where: str = "") -> None:
    """Compare exactly, down to the type and every bit of every tensor."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.device == b.device, where
        assert torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num()), where
    elif dataclasses.is_dataclass(a):
        for each in dataclasses.fields(a):
            assert_equal(getattr(a, each.name), getattr(b, each.name), f"{where}.{each.name}")
    elif isinstance(a, tuple) and hasattr(a, "_asdict"):
        assert_equal(a._asdict(), b._asdict(), where)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_equal(one, other, f"{where}[{i}]")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}[{key!r}]")
    else:
        assert a == b or (a != a and b != b), where  # NaN: a number that there is not


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder of runs in which both networks were trained and everything computed."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(root))
        run = opened(**TINY)
        found = {network: everything(run, network, deep=network == PAIR[0]) for network in PAIR}
    return run, found


@pytest.fixture
def runs_folder(first, monkeypatch) -> Path:
    """The folder of `first`, for the runs that a test opens."""
    root = first[0].folder.parent
    monkeypatch.setenv("RFVIZ_RUNS", str(root))
    return root


@pytest.fixture
def empty_folder(tmp_path, monkeypatch) -> Path:
    """A fresh folder for the runs that a test opens."""
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


class KernelCalledError(Exception):
    """Something was computed."""


@pytest.fixture
def no_kernels(monkeypatch):
    """Let every kernel raise."""

    def refuse(*arguments, **options):
        raise KernelCalledError

    for module, name in KERNELS:
        monkeypatch.setattr(module, name, refuse)


# -- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", PAIR)
def test_everything_is_read_the_second_time(first, runs_folder, no_kernels, architecture):
    again = opened(**TINY)
    assert again is not first[0]
    assert_equal(everything(again, architecture, deep=architecture == PAIR[0]), first[1][architecture], architecture)


def test_an_empty_run_computes(empty_folder, no_kernels):
    """The test above would otherwise prove nothing."""
    run = opened(**TINY)
    for method in (run.net, run.whitening):
        with pytest.raises(KernelCalledError):
            method("resnet34")
    for result in (results.history, results.stimuli, results.pooling, results.noise_effect, results.gabors):
        with pytest.raises(KernelCalledError):
            result(run, "resnet34")
    for result in (results.orientation, results.colour, results.maxima):
        with pytest.raises(KernelCalledError):
            result(run, "resnet34", "maxpool")


def test_results_are_what_the_kernels_give(first):
    """What comes out of the folder is what the kernels say of the same network and images."""
    run, found = first[0], first[1]["resnet34"]
    net, white, images = run.net("resnet34"), run.whitening("resnet34"), run.images
    network = NETWORKS["resnet34"]
    expected = responses.collect(net, images.stimuli, network.stream, top_k=4, strongest=32, preprocess=white)
    assert_equal(found["stimuli"], expected)
    assert_equal(found["maxima"], maximization.maximize(net, "maxpool", steps=2))
    pooled = responses.collect(net, images.evaluation, ["maxpool"], 1, mean_stimulus=False, preprocess=white)["maxpool"]
    assert_equal(found["pooling"], pooled)
    effect = noise.noise_effect(
        net, images.evaluation, pooled, seeds=[0, 1], groups=images.evaluation.labels, preprocess=white
    )  # the crops of a photograph are its class
    assert_equal(found["noise"], effect)
    assert_equal(found["orientation"], tuning.measure(net, "maxpool", preprocess=white))
    fresh = calibrated(controls.random_weights(net, 1), images.evaluation, preprocess=white)
    assert_equal(found["orientation by chance"], tuning.measure(fresh, "maxpool", preprocess=white))
    assert_equal(found["colour"], spots.measure(net, "maxpool", preprocess=white))
    assert found["gabors"][3] == gabor.fit(net.conv1.weight[3])
    assert found["gabors by chance"][3] == gabor.fit(controls.random_weights(net).conv1.weight[3])
    assert_equal(found["colour of filters"], spots.of_filters(net.conv1.weight, preprocess=white))
    other = calibrated(controls.random_weights(net), images.evaluation, preprocess=white)
    assert_equal(found["maxima by chance"], maximization.maximize(other, "maxpool", steps=2))
    assert_equal(
        found["stimuli by chance"],
        responses.collect(other, images.stimuli, network.stream, top_k=4, strongest=32, preprocess=white),
    )
    handed = stream.handed_on(other, images.evaluation, network.stream, skips=True, preprocess=white)
    assert_equal(found["handed on"], handed)
    for half, kept in enumerate(found["halves"]):  # of the photographs, which are the classes
        part = torch.utils.data.Subset(
            images.stimuli, [i for i, c in enumerate(images.stimuli.labels) if c % 2 == half]
        )
        assert_equal(kept, responses.collect(net, part, ["layer1.2"], 1, preprocess=white)["layer1.2"])
    assert_equal(found["silence"], silent.silence(net, images.evaluation, pooled, preprocess=white))
    evidence = found["evidence"]
    assert_equal(evidence.written, stream.written(net, images.evaluation, network.stream, preprocess=white))
    random = calibrated(controls.random_weights(net), images.evaluation, preprocess=white)
    assert_equal(evidence.by_chance, stream.written(random, images.evaluation, network.stream, preprocess=white))
    strength = stream.read_strength(net, network.readers)["layer1.0.conv1"]
    options = {"groups": images.evaluation.labels, "preprocess": white}
    assert_equal(evidence.dose, noise.noise_dose(net, images.evaluation, pooled, strength, at_most=8, **options))
    without = {5: intervene.silencing(5)}
    options = {"indices": intervene.spread(len(images.evaluation), 8), "preprocess": white}
    assert_equal(
        evidence.ablated["layer1.2"][5],
        intervene.loss_changes(net, images.evaluation, "layer1.2", without, **options)[5],
    )
    assert_equal(found["whitening"], whitening.fit([images.train[i][0] for i in range(3)]))


def test_sparsity_counts_zeros_after_every_relu(first):
    """Against hooks on a network of which every ReLU is a module of its own, image by image."""
    run, found = first
    net, white, images = run.net("resnet34"), run.whitening("resnet34"), run.images.evaluation
    zeros, neurons = [0] * 33, [0] * 33
    with torch.no_grad():
        for i in range(len(images)):
            x, seen = white(images[i][0][None]), []
            x = torch.relu(net.bn1(net.conv1(x)))
            seen.append(x)
            x = net.maxpool(x)
            for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
                for block in stage:
                    inner = torch.relu(block.bn1(block.conv1(x)))
                    skip = x if block.downsample is None else block.downsample(x)
                    x = torch.relu(block.bn2(block.conv2(inner)) + skip)
                    seen += [inner, x]
            for place, values in enumerate(seen):
                zeros[place] += int((values == 0).sum())
                neurons[place] += values.numel()
    profile = found["resnet34"]["sparsity"]
    assert list(profile)[:4] == ["conv1", "layer1.0.relu1", "layer1.0", "layer1.1.relu1"]
    assert list(profile.values()) == pytest.approx([z / n for z, n in zip(zeros, neurons, strict=True)], abs=2e-3)


def test_results_differ_between_networks_and_layers(first, runs_folder):
    run, found = first
    strongest = [found[network]["stimuli"]["maxpool"].maximum for network in PAIR]
    assert not torch.equal(*strongest)
    assert results.maxima(run, "resnet34", "layer1.0").images.shape[-1] == 27
    assert found["resnet34"]["maxima"].images.shape == (20, 3, 11, 11)


def test_history_belongs_to_the_weights(first):
    run, found = first
    for architecture in PAIR:
        last = found[architecture]["history"][-1]
        assert len(found[architecture]["history"]) == TINY["epochs"]
        loss, top1 = evaluate(run.net(architecture), run.images.evaluation, run.whitening(architecture))
        assert last["evaluation_loss"] == pytest.approx(loss, rel=1e-5)
        assert last["evaluation_top1"] == pytest.approx(top1, abs=1e-3)
        assert found[architecture]["noise"].clean_loss == pytest.approx(loss, rel=1e-5)
        assert not run.net(architecture).training


def test_no_checkpoint_is_left(first):
    files = [path for path in first[0].folder.rglob("*") if path.is_file()]
    assert len(files) >= 1 + 5 * 2
    assert {path.suffix for path in files if path.parent.name != lock.FOLDER} == {".safetensors"}


def test_a_damaged_result_is_computed_anew(first, runs_folder, tmp_path):
    shutil.copytree(first[0].folder, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.safetensors"):
        if "trained" not in path.name:
            path.write_bytes(path.read_bytes()[:-1])
    run = Run(first[0].given, 0, tmp_path / "copy", progress=False)
    again = everything(run, "resnet34", deep=False)
    assert_equal(again, {name: first[1]["resnet34"][name] for name in again})


# -- seeds and interruptions ------------------------------------------------------------------------------------------


def test_same_seed_same_weights(first, empty_folder):
    torch.manual_seed(4321)  # the caller's random numbers play no part
    again = opened(**TINY)
    assert again.folder != first[0].folder
    assert_equal(again.net("resnet34").state_dict(), first[1]["resnet34"]["weights"])


def test_another_seed_gives_other_weights_in_the_same_folder(first, runs_folder):
    other = opened(seed=1, **TINY)
    assert other.folder == first[0].folder
    digests = {tensor_digest(other.net("resnet34").state_dict()), tensor_digest(first[1]["resnet34"]["weights"])}
    assert len(digests) == 2
    assert trained.path(other, "resnet34") != trained.path(first[0], "resnet34")
    assert trained.path(first[0], "resnet34").exists()


def test_another_seed_draws_other_noise(first, tmp_path, runs_folder):
    """With the same weights: noise seeds of different runs do not overlap."""
    weights = {"resnet34": str(trained.path(first[0], "resnet34"))}
    effects = [results.noise_effect(opened(seed=seed, weights=weights, **TINY), "resnet34").effects for seed in (0, 1)]
    losses = torch.cat([effect["least_active"].loss for effect in effects])
    assert len(losses.unique()) == 4
    assert_equal(effects[0], first[1]["resnet34"]["noise"].effects)


def test_interrupted_training_goes_on(first, empty_folder, monkeypatch):
    calls = []

    def fails_second_time(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    run = opened(**TINY)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", fails_second_time)
        patch.setattr(trainer, "train", functools.partial(trainer.train, checkpoint_every=0))
        with pytest.raises(KeyboardInterrupt):
            run.net("resnet34")
    assert len(list(run.folder.rglob("*.checkpoint.*"))) == 1
    assert not list(run.folder.rglob("trained-*.safetensors"))

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", lambda *a, **options: calls.append(2) or evaluate(*a, **options))
        again = opened(**TINY)
        net = again.net("resnet34")
    assert calls == [1, 1, 2]  # only the second epoch is trained again
    assert_equal(net.state_dict(), first[1]["resnet34"]["weights"])
    for now, uninterrupted in zip(results.history(again, "resnet34"), first[1]["resnet34"]["history"], strict=True):
        assert {**now, "images_per_second": 0} == {**uninterrupted, "images_per_second": 0}
    assert list(run.folder.rglob("*.checkpoint*")) == []


# -- given weights ----------------------------------------------------------------------------------------------------


@pytest.fixture(
    params=[
        "safetensors",
        *(pytest.param(each, marks=pytest.mark.thorough) for each in ("pth with module. prefix", "path object")),
    ]
)
def given(request, first, tmp_path):
    """The trained weights of `first` in one of the forms in which they can be given."""
    if request.param in ("safetensors", "path object"):
        path = tmp_path / "given.safetensors"
        shutil.copy(trained.path(first[0], "resnet34"), path)
        return path if request.param == "path object" else str(path)
    prefix = "module." if "module" in request.param else ""
    path = tmp_path / "given.pth"
    torch.save({prefix + name: value for name, value in first[1]["resnet34"]["weights"].items()}, path)
    return str(path)


def test_given_weights_take_the_place_of_training(first, empty_folder, monkeypatch, given):
    monkeypatch.setattr(trainer, "train", None)  # calling it would fail
    run = opened(weights={"resnet34": given}, **TINY)
    computed = everything(run, "resnet34", deep=False)
    told = str(given).endswith(".safetensors")  # a state dict says nothing of the training
    assert computed["history"] == (first[1]["resnet34"]["history"] if told else [])
    before = {name: first[1]["resnet34"][name] for name in computed}
    assert_equal({**computed, "history": before["history"]}, before)


def test_weights_bring_the_whitening_that_they_were_trained_with(first, empty_folder):
    path = trained.path(first[0], "resnet34")
    run = opened(weights={"resnet34": str(path)}, **{**TINY, "whitening": "zca"})
    assert_equal(run.whitening("resnet34"), first[0].whitening("resnet34"))
    with pytest.raises(AssertionError):
        assert_equal(run.whitening("plainnet34"), first[0].whitening("resnet34"))


def test_other_weights_in_the_same_file_are_noticed(first, empty_folder, tmp_path):
    path = tmp_path / "given.pth"
    found = []
    for change in (1.0, 2.0):
        state = first[1]["resnet34"]["weights"]
        torch.save({**state, "conv1.weight": state["conv1.weight"] * change}, path)
        run = opened(weights={"resnet34": str(path)}, **TINY)
        net = run.net("resnet34")
        found.append(results.maxima(run, "resnet34", "maxpool").activations)
        assert torch.equal(found[-1], maximization.maximize(net, "maxpool", steps=2).activations)
    assert not torch.equal(*found)


def test_weights_of_the_other_architecture_are_refused(first, empty_folder):
    path = str(trained.path(first[0], "plainnet34"))
    run = opened(weights={"resnet34": path}, **TINY)
    with pytest.raises(RfvizError) as caught:
        run.net("resnet34")
    said = f"{path} holds a PlainNet34, but was given as ResNet34: write --weights plainnet34={path}."
    assert one_line(caught) == said


def test_a_backbone_is_refused_with_what_can_be_done_with_it(first, empty_folder, tmp_path):
    state = {key: value for key, value in first[1]["resnet34"]["weights"].items() if not key.startswith("fc.")}
    torch.save(state, tmp_path / "backbone.pth")
    run = opened(weights={"resnet34": str(tmp_path / "backbone.pth")}, **TINY)
    with pytest.raises(
        RfvizError, match=r"holds no classifier \(fc\).*: rfviz explore rfviz:resnet34 FOLDER --weights"
    ):
        run.check_weights()


def test_weights_for_other_classes_are_refused(empty_folder, tmp_path):
    torch.save(models.plainnet34(20, 5).state_dict(), tmp_path / "five.pth")
    run = opened(weights={"plainnet34": str(tmp_path / "five.pth")}, **TINY)
    said = r"five\.pth tells 5 classes apart, but the images have 3, on which ResNet34 is to be trained: .*--networks p"
    with pytest.raises(RfvizError, match=said) as caught:
        results.noise_effect(run, "plainnet34")
    one_line(caught)


@pytest.mark.parametrize("ask", [Run.net, Run.whitening, results.stimuli, results.noise_effect, results.pooling])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_missing_weights_are_an_error(empty_folder, tmp_path, suffix, ask):
    path = tmp_path / f"nowhere.{suffix}"
    run = opened(weights={"resnet34": str(path)}, **TINY)
    with pytest.raises(RfvizError) as caught:
        ask(run, "resnet34")
    assert str(path) in one_line(caught)


@pytest.mark.parametrize("method", ["net", "whitening"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth", "model"])
def test_files_that_are_no_weights_are_an_error(empty_folder, tmp_path, suffix, method):
    path = tmp_path / f"letter.{suffix}"
    path.write_text("Dear reader,\nthese are no weights.\n")
    run = opened(weights={"resnet34": str(path)}, **TINY)
    with pytest.raises(RfvizError) as caught:
        getattr(run, method)("resnet34")
    assert str(path) in one_line(caught)


# -- several seeds ----------------------------------------------------------------------------------------------------


def test_replicas_differ_in_the_seed_alone(first):
    run = first[0]
    replicas = run.replicas(3)
    assert replicas[0] is run
    assert [each.seed for each in replicas] == [run.seed, run.seed + 1, run.seed + 2]
    assert {(each.folder, each.device, each.given.name) for each in replicas} == {
        (run.folder, run.device, run.given.name)
    }
    assert all(each.images is run.images for each in replicas)  # read once
    assert len({trained.path(each, "resnet34") for each in replicas}) == 3


def test_a_replica_is_the_run_of_its_seed(first, empty_folder):
    replica = opened(**TINY).replicas(2)[1]
    alone = opened(seed=1, **TINY)
    assert trained.path(replica, "resnet34") == trained.path(alone, "resnet34")
    assert_equal(replica.net("resnet34").state_dict(), alone.net("resnet34").state_dict())
    assert not torch.equal(replica.net("resnet34").conv1.weight, first[0].net("resnet34").conv1.weight)


@pytest.mark.parametrize("seeds", [0, -1, 1.5, "2", True, None])
def test_impossible_numbers_of_seeds_are_refused(first, seeds):
    with pytest.raises(RfvizError, match=r"seeds is .*: it must be a whole number from 1 up"):
        first[0].replicas(seeds)


def test_given_weights_have_one_seed(first, empty_folder):
    run = opened(weights={"resnet34": str(trained.path(first[0], "resnet34"))}, **TINY)
    assert run.replicas(1) == [run]
    with pytest.raises(RfvizError, match="weights were given"):
        run.replicas(2)


# -- whitening --------------------------------------------------------------------------------------------------------


def test_the_whitening_of_a_large_set_is_that_of_images_spread_over_it(empty_folder, monkeypatch):
    monkeypatch.setattr(runs, "WHITENING_IMAGES", 2)
    run = opened(**TINY)
    train = run.images.train
    assert len(train) == 3
    assert data_whitening(run) == whitening.fit([train[0][0], train[2][0]]).to_json()


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_no_result(first, empty_folder, workers):
    run = Run(first[0].given, first[0].seed, empty_folder / "here", progress=False, workers=workers)
    assert data_whitening(run) == data_whitening(first[0])
    assert_equal(run.net("resnet34").state_dict(), first[1]["resnet34"]["weights"])
    assert_equal(results.pooling(run, "resnet34"), results.pooling(first[0], "resnet34"))


# -- names ------------------------------------------------------------------------------------------------------------


def test_unknown_names_are_refused(first):
    run = first[0]
    for ask in (Run.net, Run.whitening, results.history, results.stimuli, results.noise_effect):
        with pytest.raises(RfvizError, match=r"unknown network 'resnet43'\. Did you mean 'resnet34'") as caught:
            ask(run, "resnet43")
        one_line(caught)
    with pytest.raises(RfvizError, match=r"layer1\.3.*Did you mean") as caught:
        results.maxima(run, "resnet34", "layer1.3")
    one_line(caught)


def test_channels_of_a_run(first):
    assert first[0].channels("18,19") == {"resnet34": 18, "plainnet34": 19}
    with pytest.raises(RfvizError, match="20"):
        first[0].channels([18, 20])


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (None, (18, 19)),
        ("", (18, 19)),
        (18, (18, 18)),
        ([18, 19], (18, 19)),
        ("18,19", (18, 19)),
        ("[18, 19]", (18, 19)),
        ("7", (7, 7)),
        ((3,), (3, 3)),
    ],
)
def test_channels_of_a_notebook(empty_folder, channels, expected):
    assert open_run("smoke").channels(channels) == dict(zip(PAIR, expected, strict=True))


@pytest.mark.parametrize("channels", ["eighteen", [], [1, 2, 3], "1,2,3", 1.5, ["a", "b"]])
def test_channels_that_are_none_are_refused(empty_folder, channels):
    with pytest.raises(RfvizError, match="channels is") as caught:
        open_run("smoke").channels(channels)
    one_line(caught)


def test_channels_of_one_network_and_of_three(empty_folder):
    one, three = (open_run("smoke", networks=names) for names in ("resnet18", "resnet18,resnet50,plainnet18"))
    assert one.channels() == {"resnet18": 18}
    assert three.channels("3") == {"resnet18": 3, "resnet50": 3, "plainnet18": 3}
    with pytest.raises(RfvizError, match=r"give one channel number\.$"):
        one.channels([1, 2])
    with pytest.raises(RfvizError, match="or 3 such as 18,18,18 for ResNet18 and ResNet50 and PlainNet18"):
        three.channels([1, 2])


def test_subject_and_contrast(empty_folder):
    def roles(*names: str) -> tuple:
        run = open_run("smoke", networks=list(names))
        assert not (run.accuracy_control and "resnet34-short" not in names)
        return run.subject.name, run.contrast and run.contrast.name

    assert roles("resnet34", "plainnet34") == ("resnet34", "plainnet34")
    assert roles("resnet18") == ("resnet18", None)
    assert roles("resnet18", "resnet50") == ("resnet18", None)
    assert roles("resnet18", "resnet50", "plainnet34") == ("resnet18", "plainnet34")
    assert roles("plainnet18", "resnet34") == ("plainnet18", "resnet34")
    assert roles("resnet34", "resnet34-short", "plainnet34") == ("resnet34", "plainnet34")
    controlled = open_run("smoke", networks=["resnet34", "plainnet34", "resnet34-short"])
    assert controlled.accuracy_control.name == "resnet34-short"
    assert open_run("smoke", networks=["plainnet34", "resnet34-short"]).accuracy_control is None


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None])
def test_impossible_seeds_are_refused(empty_folder, seed):
    with pytest.raises(RfvizError, match="seed is"):
        open_run("smoke", seed)


def test_unknown_presets_and_options_are_refused_before_anything_is_made(empty_folder):
    with pytest.raises(RfvizError, match="Did you mean 'smoke'"):
        open_run("smok")
    with pytest.raises(RfvizError, match="Did you mean 'epochs'"):
        open_run("smoke", epoch=3)
    with pytest.raises(RfvizError, match="epochs is 0"):
        open_run("smoke", epochs=0)
    with pytest.raises(RfvizError, match="Did you mean 'resnet34'"):
        open_run("smoke", weights={"resnet43": "file"})
    assert not empty_folder.exists()


# -- folders of runs --------------------------------------------------------------------------------------------------


def test_overrides_get_a_folder_of_their_own(empty_folder):
    assert open_run("smoke").folder == empty_folder / "smoke"
    assert open_run("smoke", 3, epochs=None, images=None, weights={}).folder == empty_folder / "smoke"
    overrides = [
        {"epochs": 1},
        {"epochs": 2},
        {"repeats": 1},
        {"epochs": 1, "repeats": 1},
        {"weights": {"resnet34": "a"}},
    ]
    folders = [open_run("smoke", **each).folder for each in overrides]
    assert len({empty_folder / "smoke", *folders}) == 6
    assert all(folder.parent == empty_folder and folder.name.startswith("smoke-") for folder in folders)
    assert open_run("smoke", repeats=1, epochs=1).folder == folders[3]
    assert not empty_folder.exists()


def test_paths_may_be_path_objects(empty_folder, tmp_path):
    assert open_run("smoke", images=tmp_path).folder == open_run("smoke", images=str(tmp_path)).folder
    assert (
        open_run("smoke", weights={"resnet34": tmp_path / "w.pth"}).folder
        == open_run("smoke", weights={"resnet34": str(tmp_path / "w.pth")}).folder
    )


def test_the_folder_of_runs_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    repository = Path(runs.__file__).parents[2]
    monkeypatch.delenv("RFVIZ_RUNS", raising=False)
    for folder in (tmp_path, repository / "tests", Path("/")):
        monkeypatch.chdir(folder)
        assert open_run("smoke").folder == repository / "runs" / "smoke"
    monkeypatch.setenv("RFVIZ_RUNS", "")
    assert runs.root() == repository / "runs"


def test_a_relative_folder_of_runs_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("RFVIZ_RUNS", "here")
    monkeypatch.chdir(tmp_path)
    run = open_run("smoke")
    monkeypatch.chdir("/")
    assert run.folder == tmp_path.resolve() / "here" / "smoke"


@pytest.mark.thorough
def test_results_are_the_same_from_another_process_and_folder(first, tmp_path):
    """Read there, not computed: training would take the place of the weights that this process knows."""
    script = (
        "import sys, json; from rfviz.lab.run import open_run; from rfviz.training import trainer; "
        "trainer.train = None; run = open_run('smoke', **json.loads(sys.argv[1])); "
        "print(run.current('network resnet34'))"
    )
    environment = {**os.environ, "RFVIZ_RUNS": str(first[0].folder.parent), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(TINY)], env=environment, cwd=tmp_path, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == tensor_digest(first[1]["resnet34"]["weights"])


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "file"))
    with pytest.raises(RfvizError, match="RFVIZ_RUNS") as caught:
        opened(**TINY).net("resnet34")
    one_line(caught)


# -- folders of images ------------------------------------------------------------------------------------------------

NAMES = ("astronaut", "chelsea", "coffee")


def cut_photographs(root: Path, names=NAMES) -> Path:
    """Write crops of real photographs, `train/` and `val/`, in several sizes and formats."""
    for name in names:
        train, evaluation = photographs.parts(photographs.photograph(name))
        for part, image, count in (("train", train, 6), ("val", evaluation, 3)):
            folder = root / part / name
            folder.mkdir(parents=True)
            cuts = photographs.tiles(image, 80)[:count]
            for i, cut in enumerate(cuts):
                wide = np.asarray(cut.permute(1, 2, 0))[: 80 - 8 * (i % 3)]
                Image.fromarray(wide).save(folder / f"{i}.{('png', 'jpg')[i % 2]}")
    return root


@pytest.fixture
def images(tmp_path) -> Path:
    return cut_photographs(tmp_path / "images")


def test_everything_runs_on_a_folder_of_images(images, empty_folder, monkeypatch):
    run = opened(images=str(images), **SHORT)
    assert list(run.classes) == sorted(NAMES)
    assert len(run.images.train) == 18 and len(run.images.evaluation) == 9
    assert run.images.stimuli is run.images.evaluation
    assert run.images.evaluation[0][0].shape == (3, 48, 48)
    computed = {network: everything(run, network, deep=False) for network in PAIR}
    for architecture, found in computed.items():
        assert found["stimuli"]["layer1.0"].image_count == 9
        assert found["noise"].images == 9
        assert run.net(architecture).fc.out_features == 3
    assert run.provenance()["images left out"] == "none"

    for module, name in KERNELS:
        monkeypatch.setattr(module, name, None)
    again = opened(images=str(images), **SHORT)
    assert_equal({network: everything(again, network, False) for network in PAIR}, computed)


def test_a_changed_image_is_noticed(images, empty_folder):
    def prints() -> tuple[str, ...]:
        run = opened(images=str(images), **SHORT)
        return run.images.train.fingerprint, run.images.evaluation.fingerprint, trained.path(run, "resnet34").name

    before = prints()
    assert prints() == before
    path = images / "val" / "coffee" / "0.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    after = prints()
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert after[2] != before[2]  # the history holds the evaluation of every epoch


def test_a_broken_image_is_left_out_and_named(images, empty_folder):
    (images / "train" / "coffee" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (images / "val" / "chelsea" / "empty.jpg").write_bytes(b"")
    run = opened(images=str(images), **SHORT)
    assert len(run.images.train) == 18 and len(run.images.evaluation) == 9
    left_out = run.provenance()["images left out"]
    assert "train/coffee/broken.png" in left_out and "val/chelsea/empty.jpg" in left_out
    assert left_out.count("empty.jpg") == 1  # evaluation images and stimuli are the same set


def test_a_broken_image_is_refused_where_that_is_asked_for(images, empty_folder):
    broken = images / "train" / "coffee" / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(RfvizError, match=r"broken\.png") as caught:
        opened(images=str(images), strict=True, **SHORT).images  # noqa: B018  # read when asked for
    one_line(caught)


def test_a_folder_with_one_class_is_an_error(tmp_path, empty_folder):
    folder = cut_photographs(tmp_path / "one", ["coffee"])
    run = opened(images=str(folder), **SHORT)
    with pytest.raises(RfvizError, match=r"only the class 'coffee'.*at least two") as caught:
        run.net("resnet34")
    assert str(folder) in one_line(caught)


def test_one_photograph_is_an_error(empty_folder):
    with pytest.raises(RfvizError, match="photographs has only the class 'astronaut'") as caught:
        opened(**{**TINY, "classes": 1}).net("resnet34")
    one_line(caught)


def test_a_folder_that_is_missing_is_an_error(tmp_path, empty_folder):
    run = opened(images=str(tmp_path / "nowhere"), **SHORT)
    with pytest.raises(RfvizError, match="no image folder") as caught:
        run.net("resnet34")
    one_line(caught)


# -- provenance -------------------------------------------------------------------------------------------------------


def test_provenance_says_what_a_run_was_made_with(first, runs_folder):
    run, found = first
    facts = run.provenance()
    assert facts["preset"] == "smoke" and facts["seed"] == 0
    assert facts["weights of ResNet34 (hash)"] == tensor_digest(found["resnet34"]["weights"])
    assert facts["weights of PlainNet34 (hash)"] == tensor_digest(found["plainnet34"]["weights"])
    assert facts["training images (hash)"] == run.images.train.fingerprint
    assert f"{len(run.images.evaluation)} images" in facts["evaluation images (hash)"]
    for change in ("top_k = 4", "noise_seeds = 2", "resnet34 epochs = 2", "plainnet34 repeats = 8"):
        assert change in facts["parameters"]
    assert "width" not in facts["parameters"] and "learning_rate" not in facts["parameters"]
    assert facts["images left out"] == "none"
    assert facts["torch"] == torch.__version__


def test_an_unchanged_preset_has_no_differences():
    assert runs._differences(presets.get("smoke")) == []


def test_differences_of_one_network_are_its_own():
    found = presets.get("smoke", networks="resnet34,resnet34-short", **{"resnet34-short.epochs": 2})
    assert runs._differences(found) == ["networks = ('resnet34', 'resnet34-short')", "resnet34-short epochs = 2"]


def test_weights_of_other_classes_are_refused(empty_folder, tmp_path):
    net = models.build("resnet34", 20, 4)
    path = tmp_path / "other.safetensors"
    save_tensors(net.state_dict(), path, {"values": {"classes": ["ant", "bee", "cow", "dog"]}})
    run = open_run("smoke", weights={"resnet34": path})
    with pytest.raises(RfvizError, match=r"other\.safetensors was trained on the classes ant, bee, cow, dog"):
        run.check_weights()
    save_tensors(net.state_dict(), path, {"values": {"classes": list(run.classes)}})
    run = open_run("smoke", weights={"resnet34": path})
    run.check_weights()
    assert run.labelled and run.net("resnet34").name == "resnet34"


# -- weights whose classes are not those of the images -----------------------------------------------------------------


@pytest.fixture
def of_others(tmp_path) -> Path:
    torch.manual_seed(2)
    torch.save(models.build("resnet34", 20, 7).state_dict(), tmp_path / "others.pth")
    return tmp_path / "others.pth"


@pytest.mark.parametrize(
    "layout", ["flat", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("nested", "train and val"))]
)
def test_weights_and_a_folder_make_every_result_that_needs_no_label(layout, images, of_others, empty_folder, tmp_path):
    if layout == "flat":
        flat = tmp_path / "flat"
        flat.mkdir()
        for number, path in enumerate(sorted(images.rglob("*.*"))):
            path.rename(flat / f"{number}{path.suffix}")
        images = flat
    elif layout == "nested":
        (images / "train").rename(images / "some")
        (images / "val").rename(images / "more")
    run = opened(images=str(images), weights={"resnet34": str(of_others)}, **SHORT)
    assert run.given.networks == ("resnet34",) and not run.given.trains
    run.check_weights()
    assert not run.labelled and results.accuracy(run, "resnet34") is None
    count = len(run.evaluation)
    assert count == (9 if layout == "train and val" else 27)
    effect, dose = results.noise_effect(run, "resnet34"), results.noise_dose(run, "resnet34")
    assert not effect.labelled and not dose.labelled and effect.images == count
    assert results.stimuli(run, "resnet34")["maxpool"].image_count == count
    assert (dose.loss["matched"] >= 0).all() and dose.loss["matched"].max() > 0
    (listed,) = run.folder.glob("images-*.csv")
    assert len(listed.read_text().splitlines()) == 1 + len(list(images.rglob("*.*")))


def test_what_stands_in_the_place_of_labels_is_said_once(images, of_others, empty_folder, caplog):
    run = opened(images=str(images), weights={"resnet34": str(of_others)}, **SHORT)
    run.check_weights()
    _ = run.evaluation, run.stimuli
    told = [message for message in caplog.messages if "labels are not used" in message]
    assert len(told) == 1 and "others.pth tells 7 classes apart, but the images have 3" in told[0]


def test_labels_decide_which_results_are_read(images, of_others, empty_folder, tmp_path):
    """The same weights with a classifier for the classes of the images: losses, in a file of their own."""
    run = opened(images=str(images), weights={"resnet34": str(of_others)}, **SHORT)
    divergence = results.noise_effect(run, "resnet34")
    state = torch.load(of_others)
    torch.save(state | {"fc.weight": state["fc.weight"][:3], "fc.bias": state["fc.bias"][:3]}, of_others)
    run = opened(images=str(images), weights={"resnet34": str(of_others)}, **SHORT)
    loss = results.noise_effect(run, "resnet34")
    assert run.labelled and loss.labelled and not divergence.labelled
    assert loss.clean_loss > 0 == divergence.clean_loss


def test_a_network_that_is_to_be_trained_needs_labels(images, of_others, empty_folder):
    flat = images / "train" / "coffee"
    with pytest.raises(RfvizError, match=r"--split 0\.2 .*or give weights of every network") as caught:
        _ = opened(images=str(flat), **SHORT).images
    one_line(caught)
    run = opened(images=str(flat), networks="resnet34,plainnet34", weights={"resnet34": str(of_others)}, **SHORT)
    with pytest.raises(RfvizError, match=r"coffee has no folder 'train'"):
        run.check_weights()


def test_a_folder_of_classes_is_split_and_the_list_says_how(images, empty_folder):
    run = opened(images=str(images / "train"), split=0.5, **SHORT)
    assert (len(run.images.train), len(run.images.evaluation)) == (9, 9)
    (listed,) = run.folder.glob("images-*.csv")
    rows = [row.split(",")[:2] for row in listed.read_text().splitlines()[1:]]
    assert all(rows.count([part, name]) == 3 for part in ("train", "val") for name in NAMES)


# -- networks that begin with given weights ----------------------------------------------------------------------------

FROZEN = {**SHORT, "repeats": 8, "classes": 3, "crop": 48, "tile": 96, "networks": "resnet18", "frozen": "layer3"}


@pytest.fixture
def front(tmp_path) -> Path:
    """The weights of a ResNet18 of the width of `smoke` without layer4, and with another fc."""
    torch.manual_seed(3)
    state = models.build("resnet18", 20, 1000).state_dict()
    save_tensors(
        {key: value for key, value in state.items() if not key.startswith("layer4")}, tmp_path / "front.safetensors"
    )
    return tmp_path / "front.safetensors"


def test_a_given_front_stays_and_the_rest_is_trained(front, tmp_path, monkeypatch):
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))
    run = opened(**FROZEN, weights={"resnet18": str(front)})
    given = load_tensors(front)[0]
    net = run.net("resnet18")
    for key, value in net.state_dict().items():
        if not key.startswith(("layer4", "fc")):
            assert torch.equal(value, given[key]), key
    assert net.fc.out_features == 3 and len(results.history(run, "resnet18")) == 2
    told = run.provenance()
    assert told["ResNet18 up to layer3 comes from"] == f"{front} ({tensor_digest(given)})"
    assert len(run.replicas(2)) == 2  # the trained part has a seed
    other = dict(given)
    other["conv1.weight"] = 2 * other["conv1.weight"]
    before = trained.path(run, "resnet18")
    save_tensors(other, front)
    again = opened(**FROZEN, weights={"resnet18": str(front)})
    assert again.is_to_be_trained("resnet18")  # what it began with has changed
    save_tensors(given, front)
    assert trained.path(opened(**FROZEN, weights={"resnet18": str(front)}), "resnet18") == before


def test_published_weights_bring_their_whitening(tmp_path, monkeypatch):
    """torchvision's address is replaced by that of a stand-in on this machine."""
    torch.manual_seed(4)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "stand-in.pth")
    hashed = hashlib.sha256((tmp_path / "stand-in.pth").read_bytes()).hexdigest()[:8]
    (tmp_path / "stand-in.pth").rename(tmp_path / f"resnet18-{hashed}.pth")
    published = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value
    stand_in = dataclasses.replace(published, url=(tmp_path / f"resnet18-{hashed}.pth").as_uri())
    monkeypatch.setattr(torchvision.models.ResNet18_Weights.IMAGENET1K_V1, "_value_", stand_in)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))
    run = opened(**FROZEN, width=64, weights={"resnet18": "IMAGENET1K_V1"})
    assert torch.equal(run.net("resnet18").layer3[1].conv2.weight, state["layer3.1.conv2.weight"])
    assert run.whitening("resnet18") == whitening.IMAGENET


def test_a_frozen_front_must_be_given(tmp_path, monkeypatch):
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))
    with pytest.raises(RfvizError, match=r"no weights of ResNet18 were given: .*--weights resnet18=FILE") as caught:
        opened(**FROZEN).net("resnet18")
    one_line(caught)
