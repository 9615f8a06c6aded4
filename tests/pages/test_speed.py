"""The tables of what `make bench` measured: on made-up results, and on the ones that are kept."""

import json
import sys

import pytest

from benchmarks import __main__ as bench
from rfviz.pages.evidence import speed

RESULTS = speed.kept_results()


def made_up() -> dict:
    floor = {"work": "top", "reference": "forward pass cut at layer1.2, nothing collected", "target": "<= 1.15",
             "ratio": 1.1, "reached": True, "seconds": 2.0, "images": 100, "peak_mb": 1234.4}  # fmt: skip
    peer = {"work": "of a neuron", "reference": "lucent", "seconds": 0.01, "peak_mb": 10}
    return {
        "rows": {
            "floor_as_torch_comes": [{"floor": "layer1.2", "images": 50, "seconds": 2.0}],
            "top_and_activity": [{**floor, "order": "a"}, {**floor, "order": "b", "ratio": 1.2, "reached": False}],
            "all_layers": [{**floor, "reference": "forward pass cut at layer4.2, nothing collected", "order": "a"}],
            "lucent": [
                {**peer, "times_faster": 905.4, "target": ">= 500 times faster", "reached": True},
                {**peer, "times_faster": 3.14},
            ],
            "memory_1000": [{"images": 1000, "peak_mb": 1000.0}, {"images": 1000, "peak_mb": 900.0}],
            "memory_10000": [{"images": 10000, "peak_mb": 1040.0}, {"images": 10000, "peak_mb": 1010.0}],
            "gpu": [],
        }
    }


def test_every_row_says_what_was_found_and_whether_that_was_the_aim():
    table = speed.benchmark_table(made_up())
    assert table.index.tolist() == [
        "top, a", "top, b", "top, a", "of a neuron", "of a neuron", "peak memory of a pass over 10,000 images",
    ]  # fmt: skip
    assert table["found"].tolist() == [
        "1.10 x",
        "1.20 x",
        "1.10 x",
        "905 x faster",
        "3.1 x faster",
        "1.08 x (1.01 to 1.16 x)",
    ]
    assert table["reached"].tolist() == ["yes", "no", "yes", "yes", "", "no"]
    # 20 ms an image against 40 ms; there is no such floor for layer4.2
    assert table["of the pass as torch comes"].tolist() == ["0.50 x", "0.50 x", "", "", "", ""]
    assert table["time"].tolist()[:4] == ["20.0 ms per image"] * 3 + ["0.01 s"]
    assert table["peak memory"].tolist()[0] == "1,234 MB"


@pytest.mark.parametrize("missing", ["floor_as_torch_comes", "memory_1000", "lucent", "top_and_activity"])
def test_rows_that_were_not_run_are_left_out(missing):
    results = made_up()
    del results["rows"][missing]
    table = speed.benchmark_table(results)
    assert len(table) == {"floor_as_torch_comes": 6, "memory_1000": 5, "lucent": 4, "top_and_activity": 4}[missing]


def test_the_kept_results_fill_both_tables():
    table = speed.benchmark_table(RESULTS)
    works = "top 16 + activity, 3 layers", "mean stimuli, 3 layers", "17 layers", "maxpool", "layer1.0", "layer1.2"
    for words in works:
        assert table.index.str.contains(words, regex=False).any()
    assert table.index.is_unique or not table.index.duplicated()[table["aim"] != ""].any()


def test_the_kept_results_say_where_they_come_from():
    assert {"date", "machine", "versions"} <= RESULTS.keys()
    assert RESULTS["commits"].keys() == RESULTS["rows"].keys()
    assert {"processor", "threads", "memory", "GPU"} <= RESULTS["machine"].keys()
    assert not [row for row in ("zennit", "captum") if not RESULTS["rows"][row][0]["same_lists_of_channels"] > 150]


def test_sentences_follow_the_results():
    row = {"images": 10, "reference": "forward pass cut at layer1.2, nothing collected"}
    results = {
        "date": "2026-01-02",
        "commits": {"a": "c1", "b": "c2", "c": "c1"},
        "machine": {"processor": "P", "threads": 2, "instructions": "I", "memory": "8 GiB", "GPU": "none"},
        "versions": {"torch": "2", "torchvision": "1"},
        "rows": {
            "floor_as_torch_comes": [
                {"floor": "layer1.2", "images": 5, "seconds": 0.2},
                {"floor": "layer4.2", "images": 5, "seconds": 9.0},
            ],
            "mean_stimuli": [
                {**row, "seconds": 0.3, "reference_seconds": 0.1, "ratio": 3.0},
                {**row, "seconds": 0.2, "reference_seconds": 0.08, "ratio": 2.5},
            ],
        },
    }
    assert (
        "Measured on 2026-01-02 at 2 commits (which `benchmarks/results.json` names by row): P, 2 threads (I)"
        in speed.measured_on(results).data
    )
    unclean = {**results, "commits": {"a": "c1-dirty", "b": "c1-dirty", "c": "c1"}}
    assert "by row), 2 of 3 rows with uncommitted changes: P" in speed.measured_on(unclean).data
    added = "add 20.0 ms to the 10.0 ms of an image's forward pass, or 12.0 ms to 8.0 ms with the channels last"
    assert added in speed.collecting(results).data
    # 20 ms an image against 40 ms
    assert "2.5 times as long as its own bare forward pass, and 0.5 times as long" in speed.speed_answer(results).data


def test_training_rows_say_what_share_of_the_step_is_reached():
    row = {"work": "training", "reference": "step", "images_per_second": 1234.4, "reference_images_per_second": 1250,
           "share": 0.98752}  # fmt: skip
    results = {
        "rows": {
            "train_step": [{**row, "target": ">= 95%", "reached": True}],
            "train_loader": [{**row, "times_faster": 2.34}],
            "train_gpu": [],
        }
    }
    table = speed.training_table(results)
    assert table["found"].tolist() == ["98.8%", "2.34 x the speed"]
    assert table["aim"].tolist() == [">= 95%", ""]
    assert table["reached"].tolist() == ["yes", ""]
    assert table["images/s"].tolist() == ["1,234", "1,234"]
    assert speed.training_table({"rows": {}}).empty


def test_the_kept_results_have_training_rows():
    assert len(speed.training_table(RESULTS)) >= 4


def test_stages_of_a_pass_are_compared_with_the_bare_one():
    rows = [
        {"stage": "forward pass", "seconds": 0.01, "gflop": 1.5},
        {"stage": "products", "seconds": 0.004, "gflop": 0.3},
        {"stage": "whole", "seconds": 0.0145, "gflop": None},
        {"stage": "for comparison", "seconds": 0.1, "gflop": 17.0},
    ]
    table = speed.profile_table({"rows": {"profile": rows}})
    assert table["time per image"].tolist() == ["10.0 ms", "4.0 ms", "14.5 ms", "100.0 ms"]
    assert table["of the forward pass"].tolist() == ["100%", "40%", "145%", ""]
    assert table["operations, 10⁹"].tolist() == ["1.50", "0.30", "", "17.00"]
    assert table["10⁹ per second"].tolist() == ["150", "75", "", "170"]
    assert speed.profile_table({"rows": {}}).empty


def test_another_machine_stands_beside_and_not_in_the_place(tmp_path, monkeypatch):
    machine = {"processor": "P", "threads": 2, "instructions": "I", "memory": "8 GiB", "GPU": "none"}
    commits = {"top_and_activity": "c1", "all_layers": "c1"}
    there = {"date": "2026-01-02", "machine": machine, "versions": {}, "commits": commits} | made_up()
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.json")
    bench.RESULTS.write_text(json.dumps(there))
    faster = [{**row, "ratio": 1.5} for row in there["rows"]["top_and_activity"]]
    monkeypatch.setattr(bench, "in_a_process", lambda row: faster)
    monkeypatch.setattr(bench.measure, "machine", lambda: {**machine, "processor": "Q"})
    monkeypatch.setattr(bench.measure, "commit", lambda: "c2")
    monkeypatch.setattr(bench.measure, "versions", dict)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "top_and_activity"])
    for _ in range(2):
        bench.main()
    kept = json.loads(bench.RESULTS.read_text())
    (other,) = kept.pop("elsewhere")
    assert kept == there and other["rows"] == {"top_and_activity": faster}
    table = speed.elsewhere_table({**kept, "elsewhere": [other]})
    assert table["top"].tolist() == ["1.10 x", "1.50 / 1.50 x"]  # of one work, the last row of the first machine
    assert table["commits"].tolist() == ["c1", "c2"]
