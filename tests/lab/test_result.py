"""A result is computed once, and anew when anything that its body read, or its code, changes or its file is damaged."""

import dataclasses
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from reference import TINY
from safetensors.torch import save_file

from rfviz.errors import RfvizError
from rfviz.kernels import controls, maximization, responses, stream
from rfviz.kernels.pictures import outside_span
from rfviz.lab import code, presets, results
from rfviz.lab.result import RESULTS, Frame
from rfviz.lab.run import Run, data_whitening, trained
from rfviz.nets.network import NETWORKS
from rfviz.storage.files import load_info, load_tensors
from rfviz.storage.lock import FOLDER

PROBE = '''
from dataclasses import dataclass

from torch import Tensor
import torch

from rfviz import stats
from rfviz.lab.result import result
from rfviz.lab.run import Run

FACTOR = 2


class Calls(list):
    def __repr__(self):
        return "calls"


COMPUTED = Calls()


@dataclass(frozen=True)
class Value:
    x: Tensor
    y: tuple[int, ...]
    notes: dict[str, list[float | None]]


@result
def probe_first(run: Run, network: str, power: float = 1.0) -> Value:
    """Say so."""
    COMPUTED.append(("probe_first", network, power))
    return Value(torch.full((3, 2), float(run.preset.top_k)) ** power, (1, 2), {network: [0.1, None]})


@result
def probe_second(run: Run, network: str) -> Tensor:
    COMPUTED.append(("probe_second", network))
    return scaled(probe_first(run, network).x) * stats.RESAMPLES


def scaled(x: Tensor) -> Tensor:
    return FACTOR * x
'''


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Declare the results of a module with some text; the text may be another the next time."""

    def module(text=PROBE):
        path = tmp_path / "probe.py"
        path.write_text(text)
        monkeypatch.setitem(code.sources(), "probe", text)
        code._tree.cache_clear()
        spec = importlib.util.spec_from_file_location("probe", path)
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "probe", found)
        spec.loader.exec_module(found)
        return found

    yield module
    for name in ("probe_first", "probe_second"):
        RESULTS.pop(name, None)
    code._tree.cache_clear()


def open_probe(folder, seed=0, **changes) -> Run:
    run = Run(dataclasses.replace(presets.PRESETS["smoke"], **changes), seed, folder)
    run.progress = False
    return run


def kept(folder):
    return sorted(path.name for path in (folder / "results").iterdir() if path.name != FOLDER)


# -- once, and anew ---------------------------------------------------------------------------------------------------


def test_a_result_is_computed_once_and_what_is_read_is_what_was_computed(declare, tmp_path):
    probe = declare()
    now = probe.probe_first(open_probe(tmp_path), "resnet34")
    later = probe.probe_first(open_probe(tmp_path), "resnet34")
    assert probe.COMPUTED == [("probe_first", "resnet34", 1.0)]
    for value in (now, later):
        assert type(value) is probe.Value
        assert torch.equal(value.x, torch.full((3, 2), 16.0))
        assert (value.y, value.notes) == ((1, 2), {"resnet34": [0.1, None]})
    assert probe.probe_first(open_probe(tmp_path), "resnet34", power=1.0).y == (1, 2)  # a default that is given
    assert len(probe.COMPUTED) == 1
    assert [name[:21] for name in kept(tmp_path)] == ["probe-first-resnet34-"]


def test_other_arguments_are_another_result(declare, tmp_path):
    probe = declare()
    for network, power in (("resnet34", 1.0), ("resnet34", 2.0), ("plainnet34", 1.0)) * 2:
        value = probe.probe_first(open_probe(tmp_path), network, power)
        assert torch.equal(value.x, torch.full((3, 2), 16.0**power))
    assert len(probe.COMPUTED) == len(kept(tmp_path)) == 3


def test_what_the_body_read_counts_and_nothing_else(declare, tmp_path):
    probe = declare()
    probe.probe_second(open_probe(tmp_path), "resnet34")
    for unread in ({"strongest": 7}, {"noise_seeds": 1}, {"strict": True}):
        probe.probe_second(open_probe(tmp_path, **unread), "resnet34")
    probe.probe_second(open_probe(tmp_path, seed=3), "resnet34")
    assert len(probe.COMPUTED) == 2  # the second and the first, once
    assert torch.equal(probe.probe_second(open_probe(tmp_path, top_k=3), "resnet34")[0, 0], torch.tensor(12000.0))
    assert len(probe.COMPUTED) == 4  # a field that the first has read: both are computed anew
    probe.probe_second(open_probe(tmp_path), "resnet34")  # and the earlier ones are still there
    assert len(probe.COMPUTED) == 4


def test_a_result_that_comes_out_the_same_does_not_make_others_compute(declare, tmp_path):
    probe = declare()
    probe.probe_second(open_probe(tmp_path), "resnet34")
    probe = declare(PROBE.replace("(1, 2), {", "(1, 1 + 1), {"))  # other code, the same value
    probe.probe_second(open_probe(tmp_path), "resnet34")
    assert probe.COMPUTED == [("probe_first", "resnet34", 1.0)]


@pytest.mark.parametrize(
    ("old", "new", "anew"),
    [
        ("FACTOR = 2", "FACTOR = 3", ["probe_second"]),  # a constant that a function of the module uses
        ("return FACTOR * x", "return x * FACTOR", ["probe_second"]),  # a function that the body calls
        ("* stats.RESAMPLES", "+ stats.RESAMPLES", ["probe_second"]),
        ("power: float = 1.0", "power: float = 2.0", ["probe_first", "probe_second"]),
        ("** power", "** power + 1", ["probe_first", "probe_second"]),
    ],
)
def test_edited_code_is_computed_anew(declare, tmp_path, old, new, anew):
    probe = declare()
    probe.probe_second(open_probe(tmp_path), "resnet34")
    assert old in PROBE
    probe = declare(PROBE.replace(old, new))
    probe.probe_second(open_probe(tmp_path), "resnet34")
    assert sorted(name for name, *_ in probe.COMPUTED) == anew


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Say so."""', '"""Say something else."""'),
        ("FACTOR * x", "FACTOR  *  x  # a remark"),
        ("def scaled(x: Tensor)", "def scaled(x: torch.Tensor)"),
        ("COMPUTED = Calls()", "COMPUTED: list = Calls()"),
    ],
)
def test_comments_docstrings_hints_and_layout_do_not_count(declare, tmp_path, old, new):
    probe = declare()
    probe.probe_second(open_probe(tmp_path), "resnet34")
    probe = declare(PROBE.replace(old, new))
    probe.probe_second(open_probe(tmp_path), "resnet34")
    assert len(probe.COMPUTED) == 0


def test_a_module_that_the_body_names_counts(declare, monkeypatch):
    before = declare().probe_second.code
    sources = code.sources()
    monkeypatch.setitem(sources, "rfviz.stats", sources["rfviz.stats"] + "\nNEW = 1\n")
    for cached in (code._tree, code._summary, code.source_digest):
        cached.cache_clear()
    assert declare().probe_second.code != before
    for cached in (code._summary, code.source_digest):
        cached.cache_clear()


@pytest.mark.parametrize("threads", [1, None])
def test_results_are_computed_on_the_threads_of_the_recipe(declare, tmp_path, threads):
    """So what comes out depends on the number of cores only where the recipe names none."""
    probe = declare(
        PROBE.replace("return FACTOR * x", "COMPUTED.append(torch.get_num_threads())\n    return FACTOR * x")
    )
    recipes = {"resnet34": dataclasses.replace(presets.PRESETS["smoke"].recipe("resnet34"), threads=threads)}
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        probe.probe_second(open_probe(tmp_path, recipes=recipes, networks=("resnet34",)), "resnet34")
        assert probe.COMPUTED[-1] == (threads or 3) and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_while_computing_stores_nothing(declare, tmp_path):
    probe = declare(PROBE.replace("    return scaled(", "    1 / 0\n    return scaled("))
    with pytest.raises(ZeroDivisionError):
        probe.probe_second(open_probe(tmp_path), "resnet34")
    assert kept(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error(declare, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RfvizError, match="cannot be written"):
        declare().probe_first(open_probe(tmp_path / "file"), "resnet34")


def test_an_argument_that_leads_out_of_the_folder_is_refused(declare, tmp_path):
    with pytest.raises(RfvizError, match="another folder"):
        declare().probe_first(open_probe(tmp_path), "../../resnet34")


def test_progress_is_kept_beside_the_result_until_it_is_there(declare, tmp_path):
    text = PROBE.replace(
        '    COMPUTED.append(("probe_second", network))',
        "    import pathlib\n    run.preset.strongest\n    COMPUTED.append(str(run.scratch()))\n"
        "    pathlib.Path(COMPUTED[-1] + '.1').touch()\n    if len(COMPUTED) == 1: raise KeyboardInterrupt",
    )
    probe = declare(text)
    with pytest.raises(KeyboardInterrupt):
        probe.probe_second(open_probe(tmp_path), "resnet34")
    (left,) = [name for name in kept(tmp_path) if "checkpoint" in name]
    probe.probe_second(open_probe(tmp_path), "resnet34")
    assert probe.COMPUTED[1] == probe.COMPUTED[0] == str(tmp_path / "results" / left.removesuffix(".1"))
    assert not [name for name in kept(tmp_path) if "checkpoint" in name]
    probe.COMPUTED.clear()
    with pytest.raises(KeyboardInterrupt):
        probe.probe_second(open_probe(tmp_path, strongest=5), "resnet34")
    assert not probe.COMPUTED[0].endswith(left.removesuffix(".1"))  # what had been read was another thing


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(declare, tmp_path):
    """The file of a result, and a way to ask for the result again that returns how often it was computed."""
    probe = declare()
    path = probe.probe_first.path(open_probe(tmp_path), "resnet34")
    probe.COMPUTED.clear()

    def again():
        probe.COMPUTED.clear()
        value = probe.probe_first(open_probe(tmp_path), "resnet34")
        assert torch.equal(value.x, torch.full((3, 2), 16.0))
        assert (value.y, value.notes) == ((1, 2), {"resnet34": [0.1, None]})
        return len(probe.COMPUTED)

    return path, again


def test_a_truncated_file_is_computed_anew(written, caplog):
    path, again = written
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with caplog.at_level(logging.WARNING):
            assert again() == 1
        assert "damaged or was changed: it is computed anew" in caplog.text
        assert path.read_bytes() == whole
        caplog.clear()


def test_no_flipped_byte_gives_a_wrong_result(written):
    path, again = written
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        again()  # asserts that the value is right


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04N.", b"\xff" * 100])
def test_garbage_is_computed_anew(written, content):
    path, again = written
    path.write_bytes(content)
    assert again() == 1


@pytest.mark.parametrize("change", ["tensor", "value", "arguments", "code", "reads", "name"])
def test_a_file_that_was_tampered_with_is_computed_anew(written, change):
    path, again = written
    tensors, info = load_tensors(path)
    if change == "tensor":
        tensors["x"][0, 0] += 1
    elif change == "value":
        info["values"]["y"] = [1, 3]
    else:
        info[change] = {"arguments": ["plainnet34", 1.0], "reads": {"preset top_k": "0"}}.get(change, "other")
    save_file(tensors, path, metadata={"rfviz": json.dumps(info)})  # without our hash of what was written
    assert again() == 1


def test_a_result_in_the_place_of_another_is_not_taken_for_it(declare, tmp_path):
    probe = declare()
    ours = probe.probe_first.path(open_probe(tmp_path), "resnet34", 2.0)
    other = probe.probe_first.path(open_probe(tmp_path), "resnet34", 3.0)
    ours.write_bytes(other.read_bytes())
    assert probe.probe_first(open_probe(tmp_path), "resnet34", 2.0).x[0, 0] == 256


@pytest.mark.thorough
def test_a_killed_writer_leaves_earlier_results(declare, tmp_path):
    probe = declare()
    path = probe.probe_first.path(open_probe(tmp_path), "resnet34")
    script = textwrap.dedent(
        """
        import os, signal, torch
        from rfviz.storage import files
        files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        files.save_tensors({"x": torch.zeros(2)}, PATH)
        """
    ).replace("PATH", f"__import__('pathlib').Path({str(path)!r})")
    before = path.read_bytes()
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


# -- the results of the book ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Run:
    """A tiny run of which every result of the book is there, those that take long of its subject alone."""
    from rfviz.explorer import sources  # noqa: F401  # declares the pictures of the explorer

    run = Run(presets.get("smoke", **TINY), 0, tmp_path_factory.mktemp("everything"))
    run.progress = False
    for network in run.networks:
        name, last = network.name, network.figure_layers[-1]
        for each in (results.sparsity, results.noise_effect, results.silence, results.disturbances, results.ablations):
            each(run, name)
        results.written(run, name, "random weights")
        for each in (results.stimuli, results.handed_on):
            each(run, name)
            each(run, name, "random weights")
        results.halves(run, name)
        results.colour(run, name, "conv1")
        results.maxima(run, name, "maxpool", "random weights")
        if network is not run.subject:
            continue
        results.gabors(run, name)
        results.effective_fields(run, name, network.high_layers[0])
        results.identification(run, name, network.picture_layers[-1])
        results.identification(run, name, last)
        results.opponency(run, name, last)
        results.diversity(run, name, last, "maxpool", "random weights")
        results.readability(run, name, last)
        RESULTS["atlas"](run, name, "maxpool")
    run.values.clear()
    results.border_stimuli(run, run.subject.name)
    return run


def names_of(run: Run) -> set[str]:
    return {load_info(path)["name"] for path in run.results.glob("*.safetensors")}


def stale(run: Run, network: str | None = None) -> set[str]:
    """Return the results in the folder of a run that would be computed anew, of one network or of all."""
    run.progress = False
    found = set()
    for path in run.results.glob("*.safetensors"):
        info = load_info(path)
        arguments = tuple(info["arguments"])
        if network in (None, *arguments[:1]) and RESULTS[info["name"]].find(run, arguments, compute=False) is None:
            found.add(info["name"])
    return found


ALL = {
    "ablations", "atlas", "border_stimuli", "clear_maxima", "colour", "data_whitening", "disturbances", "diversity",
    "effective_fields", "gabors", "halves", "handed_on", "high_stimuli", "identification", "maxima", "mean_stimuli",
    "noise_dose", "noise_effect", "opponency", "orientation", "pooling", "readability", "silence", "some_maxima",
    "sparsity", "stimuli", "trained", "written",
}  # fmt: skip
OF_STIMULI = {
    "stimuli", "clear_maxima", "mean_stimuli", "some_maxima", "identification", "high_stimuli", "effective_fields",
    "atlas", "diversity", "readability", "opponency",
}  # fmt: skip
DEPENDENTS = {
    "name": ("other", set()), "summary": ("other", set()), "where": ("other", set()),
    "strict": (True, set()), "borders": (True, OF_STIMULI),
    "short_side": (500, set()), "evaluation_crop": (40, set()),  # photographs are cut into tiles
    "networks": (("resnet34", "plainnet34", "resnet18"), set()),
    # the source stays: these ask whether a folder was given
    "images": ("folder", {"halves", "noise_effect", "noise_dose", "disturbances"}),
    "strongest": (33, OF_STIMULI - {"high_stimuli", "effective_fields"}),
    "top_k": (3, OF_STIMULI - {"high_stimuli", "effective_fields"} | {"border_stimuli"}),
    "noise_seeds": (3, {"noise_effect"}),
    "disturbed_images": (9, {"noise_dose", "ablations", "disturbances", "atlas"}),
    "picture_channels": (4, {"identification", "some_maxima"}),
    "maximization_steps": (3, {"maxima", "some_maxima", "identification", "opponency", "atlas"}),
    "tile": (48, OF_STIMULI | {"border_stimuli", "halves"}),
    "whitening": ("zca", ALL), "width": (24, ALL - {"data_whitening"}), "classes": (3, ALL),
    "source": ("photographs", set()),
    "weights": ({}, set()),
    "split": (None, set()),  # of a folder: which images these are, is in their fingerprints
    "recipes": (None, ALL - {"data_whitening"}),
}  # fmt: skip
"""For every field of a preset another value, and the results that would be computed anew with it."""


def test_the_tiny_run_has_every_result(everything):
    assert (
        names_of(everything) == ALL == RESULTS.keys() - {"top1", "own_layer"}
    )  # of given weights, and of other networks
    assert stale(Run(everything.given, 0, everything.folder)) == set()


def test_every_field_of_a_preset_is_varied():
    assert DEPENDENTS.keys() == {each.name for each in dataclasses.fields(presets.Preset)}


@pytest.mark.parametrize("field", DEPENDENTS)
def test_exactly_the_dependents_of_a_field_are_computed_anew(everything, field):
    value, expected = DEPENDENTS[field]
    if field == "recipes":
        value = {name: dataclasses.replace(each, weight_decay=0.5) for name, each in everything.given.recipes.items()}
    run = Run(dataclasses.replace(everything.given, **{field: value}), 0, everything.folder)
    assert stale(run) == expected


def test_a_recipe_counts_for_its_own_network(everything):
    recipes = dict(everything.given.recipes)
    recipes["plainnet34"] = dataclasses.replace(recipes["plainnet34"], weight_decay=0.5)
    run = Run(dataclasses.replace(everything.given, recipes=recipes), 0, everything.folder)
    assert stale(run, "resnet34") == set()
    there = {load_info(path)["name"] for path in run.results.glob("*.safetensors") if "-plainnet34" in path.name}
    assert there > {"trained", "stimuli", "noise_effect", "written"}
    assert stale(run, "plainnet34") == there - {"written"}  # there is nothing to write without skips


def test_another_seed_is_another_training(everything):
    assert stale(Run(everything.given, 1, everything.folder)) == ALL - {"data_whitening"}


def test_given_weights_are_other_weights(everything, tmp_path):
    other = trained(everything, "resnet34").weights | {"fc.bias": torch.ones(4)}
    torch.save(other, tmp_path / "other.pth")
    run = Run(
        dataclasses.replace(everything.given, weights={"resnet34": str(tmp_path / "other.pth")}), 0, everything.folder
    )
    assert stale(run, "resnet34") == ALL - {"data_whitening", "trained"}
    assert stale(run, "plainnet34") == set()


BODIES = sorted(ALL | {"top1"})


def code_of_results() -> dict[str, str]:
    code._tree.cache_clear()
    return {name: code.function_digest(each.function, type(each)) for name, each in RESULTS.items()}


@pytest.fixture(scope="module")
def digests(everything) -> dict[str, str]:
    """The digests of the code of all results as it stands."""
    return code_of_results()


@pytest.mark.parametrize("name", BODIES)
def test_an_edit_of_a_body_changes_that_result_alone(digests, name, monkeypatch):
    """What is edited is the text of the function, as in an editor."""
    result = RESULTS[name]
    home = result.function.__module__
    text = code.sources()[home]
    begin = text.index(f"def {name}(") if f"def {name}(" in text else text.index(f"def {result.function.__name__}(")
    body = text.index(":\n", text.index(")", begin)) + 2
    edited = text[:body] + "    run.note('an edit', '1')\n" + text[body:]
    with monkeypatch.context() as patch:
        patch.setitem(code.sources(), home, edited)
        after = code_of_results()
    code._tree.cache_clear()
    assert {each for each in RESULTS if after[each] != digests[each]} == {name}


@pytest.mark.parametrize("given", [None, "a folder"])
def test_no_photograph_is_in_both_halves(everything, given, monkeypatch):
    """Of crops, whole photographs, which are their classes; else every second image."""
    run = Run(dataclasses.replace(everything.given, images=given), 0, everything.folder)
    run.net, run.whitening = everything.net, everything.whitening
    monkeypatch.setattr(Run, "stimuli", everything.stimuli)
    parts = []
    monkeypatch.setattr(
        results.responses, "collect", lambda net, images, layers, **_: parts.append(images.indices) or {layers[0]: 0}
    )
    assert results.halves.function(run, "resnet34") == [0, 0]
    first, second = (set(each) for each in parts)
    assert not first & second and first | second == set(range(len(everything.stimuli)))
    photographs = [{everything.stimuli.labels[i] for i in half} for half in (first, second)]
    assert bool(photographs[0] & photographs[1]) == bool(given)  # of a folder, each image is one for itself
    assert {i % 2 for i in first} == ({0} if given else {0, 1})


def test_controls_have_random_weights_and_the_network_has_its_own(everything):
    run, name, images = everything, "resnet34", {}
    white, layers = run.whitening(name), NETWORKS[name].stream
    other = controls.calibrated(controls.random_weights(run.net(name)), run.evaluation, preprocess=white)
    for net, control in ((run.net(name), None), (other, "random weights")):
        found = results.stimuli(run, name, control)["layer1.0"]
        expected = responses.collect(
            net, run.stimuli, ["layer1.0"], TINY["top_k"], strongest=run.given.strongest, preprocess=white
        )["layer1.0"]
        assert torch.equal(found.top_images, expected.top_images)
        torch.testing.assert_close(found.strongest_stimulus, expected.strongest_stimulus)
        handed = stream.handed_on(net, run.evaluation, layers, skips=True, preprocess=white)["layer1.1"]
        torch.testing.assert_close(results.handed_on(run, name, control)["layer1.1"], handed, equal_nan=True)
        made = maximization.maximize(net, "maxpool", steps=TINY["maximization_steps"])
        torch.testing.assert_close(results.maxima(run, name, "maxpool", control).images, made.images)
        images[control] = made.images
    assert not torch.allclose(*images.values())


def test_evidence_on_what_channels_hold_and_on_what_is_written_to_them(everything):
    for name, skips in (("resnet34", True), ("plainnet34", False)):
        found, last = results.evidence(everything, name), results.stimuli(everything, name)["layer1.2"]
        expected = outside_span(last.strongest_deviation, everything.net(name).conv1.weight)
        torch.testing.assert_close(found.strange[last.competes], expected[last.competes], equal_nan=True)
        assert found.strange[~last.competes].isnan().all()
        others = results.disturbances(everything, name)
        assert len(found.cut) == 2 * skips
        for cut, group in zip(found.cut, (others.tested, others.matched), strict=False):
            assert torch.equal(cut, group["cut"]) and cut.shape == (TINY["disturbed_images"],)


def test_nothing_is_handed_on_behind_bottlenecks(everything):
    run = Run(presets.get("smoke", networks=("resnet50",)), 0, everything.folder)
    assert results.handed_on.function(run, "resnet50") == {}


def test_reads_are_noted_for_the_result_that_reads_them(everything):
    frame, inner = Frame(everything.folder), Frame(everything.folder)
    with everything.reading(frame):
        assert everything.preset.top_k == TINY["top_k"]
        with everything.reading(inner):
            assert everything.seed == 0
        data_whitening(everything)
    assert frame.reads.keys() == {"preset top_k", "result data_whitening []"}
    assert inner.reads.keys() == {"seed"}
    assert everything.preset is everything.given  # outside, nothing is noted


@pytest.mark.thorough
def test_results_are_the_same_from_another_process(everything):
    """Nothing of a process goes into what a result depends on, such as its hash seed or where the package lies."""
    script = (
        "import sys; from rfviz.lab.run import Run, trained; from rfviz.lab import presets, results; "
        f"run = Run(presets.get('smoke', **{TINY!r}), 0, __import__('pathlib').Path(sys.argv[1])); "
        "print(results.silence.find(run, ('resnet34',), compute=False) is not None)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(everything.folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.strip() == "True"


def test_what_is_noted_does_not_depend_on_who_asks_first(everything):
    """A network that is loaded already and one that is not are the same to a result."""
    run = Run(everything.given, 0, everything.folder)
    run.progress = False
    noted = []
    for _ in range(2):
        frame = Frame(everything.folder)
        with run.reading(frame):
            run.net("resnet34")
            run.whitening("resnet34")
        noted.append(frame.reads)
    assert noted[0] == noted[1]
    assert not [what for what in noted[0] if what.startswith("result")]
