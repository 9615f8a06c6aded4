"""The page on speed: what `make bench` measured."""

import json
import statistics
from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import Markdown

from rfviz.storage import places

_FLOORS = ("top_and_activity", "mean_stimuli", "all_layers", "gpu")
_TRAININGS = ("train_step", "train_gpu", "train_loader")
_PEERS = ("zennit", "captum", "patch_loop", "lucent")


def kept_results() -> dict[str, Any]:
    """Return what ``benchmarks/results.json`` holds; rows that were not run are not there."""
    return json.loads((places.repository() / "benchmarks" / "results.json").read_text())


def measured_on(results: Mapping[str, Any]) -> Markdown:
    """Say when and on what machine the results were measured."""
    machine, versions = results["machine"], results["versions"]
    made = sorted(set(results["commits"].values()))
    commits = (
        f"`{made[0]}`" if len(made) == 1 else f"{len(made)} commits (which `benchmarks/results.json` names by row)"
    )
    changed = sum(commit.endswith("-dirty") for commit in results["commits"].values())
    if changed:
        commits += f", {changed} of {len(results['commits'])} rows with uncommitted changes"
    return Markdown(
        f"Measured on {results['date']} at {commits}: {machine['processor']}, {machine['threads']} threads "
        f"({machine['instructions']}), {machine['memory']} of memory, GPU: {machine['GPU']}; torch "
        f"{versions['torch']}, torchvision {versions['torchvision']}. `make bench` repeats it."
    )


def benchmark_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per piece of work: what it is compared with, what was aimed at, and what was found, as text."""
    rows = results["rows"]
    plain = {found["floor"]: found["seconds"] / found["images"] for found in rows.get("floor_as_torch_comes", [])}
    lines = []
    for row in [row for name in _FLOORS for row in rows.get(name, [])]:
        each = row["seconds"] / row["images"]
        layer = _layer(row)
        lines.append(
            {
                "work": row["work"] + (f", {row['order']}" if "order" in row else ""),
                "compared with": row["reference"],
                "aim": row["target"],
                "found": f"{row['ratio']:.2f} x",
                "reached": "yes" if row["reached"] else "no",
                "of the pass as torch comes": f"{each / plain[layer]:.2f} x" if layer in plain else "",
                "time": f"{1000 * each:.1f} ms per image",
                "peak memory": f"{row['peak_mb']:,.0f} MB",
            }
        )
    for row in [row for name in _PEERS for row in rows.get(name, [])]:
        lines.append(
            {
                "work": row["work"],
                "compared with": row["reference"],
                "aim": row.get("target", ""),
                "found": f"{row['times_faster']:,.0f} x faster" if row["times_faster"] >= 20
                else f"{row['times_faster']:.1f} x faster",
                "reached": {True: "yes", False: "no"}.get(row.get("reached"), ""),
                "time": f"{row['seconds']:.2g} s",
                "peak memory": f"{row['peak_mb']:,.0f} MB",
            }
        )  # fmt: skip
    if {"memory_1000", "memory_10000"} <= rows.keys():
        few, many = ([row["peak_mb"] for row in rows[name]] for name in ("memory_1000", "memory_10000"))
        ratio = statistics.median(many) / statistics.median(few)
        lines.append(
            {
                "work": "peak memory of a pass over 10,000 images",
                "compared with": "1,000 images",
                "aim": "<= 1.05 x",
                "found": f"{ratio:.2f} x ({min(many) / max(few):.2f} to {max(many) / min(few):.2f} x)",
                "reached": "yes" if ratio <= 1.05 else "no",
                "peak memory": f"{statistics.median(many):,.0f} MB",
            }
        )
    order = ["work", "found", "aim", "reached", "of the pass as torch comes", "time", "peak memory", "compared with"]
    return pd.DataFrame(lines, columns=order).fillna("").set_index("work")


def elsewhere_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return what passes take beside their own floors on each machine, one row per machine, as text."""
    lines = []
    for each in (results, *results.get("elsewhere", [])):
        of = each["machine"]
        machine = f"{of['processor']}, {of['threads']} threads ({of['instructions']}), GPU: {of['GPU']}"
        passes = {name: rows for name in _FLOORS if (rows := each["rows"].get(name))}
        found = {rows[0]["work"]: " / ".join(f"{row['ratio']:.2f}" for row in rows) + " x" for rows in passes.values()}
        commits = ", ".join(sorted({each["commits"].get(name, "") for name in passes}))
        lines.append({"machine": machine, **found, "date": each["date"], "commits": commits})
    return pd.DataFrame(lines).fillna("").set_index("machine")


def profile_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the time of a pass with mean stimuli goes to, one row per stage, as text."""
    rows = results["rows"].get("profile", [])
    lines = [
        {
            "stage": row["stage"],
            "time per image": f"{1000 * row['seconds']:.1f} ms",
            "of the forward pass": f"{row['seconds'] / rows[0]['seconds']:.0%}" if number < len(rows) - 1 else "",
            "operations, 10⁹": f"{row['gflop']:.2f}" if row["gflop"] else "",
            "10⁹ per second": f"{row['gflop'] / row['seconds']:.0f}" if row["gflop"] else "",
        }
        for number, row in enumerate(rows)
    ]
    columns = ["stage", "time per image", "of the forward pass", "operations, 10⁹", "10⁹ per second"]
    return pd.DataFrame(lines, columns=columns).set_index("stage")


def training_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per way of training that was measured, as text."""
    rows = results["rows"]
    lines = [
        {
            "work": row["work"],
            "found": f"{row['share']:.1%}" if "target" in row else f"{row['times_faster']:.2f} x the speed",
            "aim": row.get("target", ""),
            "reached": {True: "yes", False: "no"}.get(row.get("reached"), ""),
            "images/s": f"{row['images_per_second']:,.0f}",
            "compared with": row["reference"],
            "its images/s": f"{row['reference_images_per_second']:,.0f}",
        }
        for name in _TRAININGS
        for row in rows.get(name, [])
    ]
    columns = ["work", "found", "aim", "reached", "images/s", "compared with", "its images/s"]
    return pd.DataFrame(lines, columns=columns).set_index("work")


def collecting(results: Mapping[str, Any]) -> Markdown:
    """Say what mean stimuli, top lists and activity add to the forward pass of an image."""
    plain, last = results["rows"]["mean_stimuli"]
    extra = [1000 * (row["seconds"] - row["reference_seconds"]) / row["images"] for row in (plain, last)]
    bare = [1000 * row["reference_seconds"] / row["images"] for row in (plain, last)]
    return Markdown(
        f"Mean stimuli of three layers, with top lists and activity, add {extra[0]:.1f} ms to the {bare[0]:.1f} ms of "
        f"an image's forward pass, or {extra[1]:.1f} ms to {bare[1]:.1f} ms with the channels last."
    )


def speed_answer(results: Mapping[str, Any]) -> Markdown:
    """Say how long a pass takes beside its own forward pass, and beside that in an ordinary process."""
    _, last = results["rows"]["mean_stimuli"]
    deepest = _layer(last)
    (bare,) = (row for row in results["rows"]["floor_as_torch_comes"] if row["floor"] == deepest)
    usual = last["seconds"] / last["images"] / (bare["seconds"] / bare["images"])
    return Markdown(
        "**Answer.** With the channels last, as the presets have it, a pass that lists the strongest stimuli and "
        f"averages all of three layers takes {last['ratio']:.1f} times as long as its own bare forward pass, and "
        f"{usual:.1f} times as long as that takes in an ordinary process."
    )


def _layer(row: Mapping[str, Any]) -> str:
    return row["reference"].removeprefix("forward pass cut at ").partition(",")[0]
