"""Tables of what `make bench` measured."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rfviz.nets.models import PAPER_ARCHITECTURES

_FLOORS = ("top_and_activity", "mean_stimuli", "all_layers", "gpu")
_TRAININGS = ("train_step", "train_gpu", "train_loader")
_PEERS = ("zennit", "captum", "patch_loop", "lucent")


def benchmark_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per piece of work: what it is compared with, what was aimed at, and what was found, as text.

    Parameters
    ----------
    results : mapping
        What ``benchmarks/results.json`` holds; rows that were not run are left out.
    """
    rows = results["rows"]
    plain = {found["floor"]: found["seconds"] / found["images"] for found in rows.get("floor_as_torch_comes", [])}
    lines = []
    for row in [row for name in _FLOORS for row in rows.get(name, [])]:
        each = row["seconds"] / row["images"]
        layer = row["reference"].removeprefix("forward pass cut at ").partition(",")[0]
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
                "of the pass as torch comes": "",
                "time": f"{row['seconds']:.2g} s",
                "peak memory": f"{row['peak_mb']:,.0f} MB",
            }
        )  # fmt: skip
    if {"memory_1000", "memory_10000"} <= rows.keys():
        few, many = rows["memory_1000"][0]["peak_mb"], rows["memory_10000"][0]["peak_mb"]
        lines.append(
            {
                "work": "peak memory of a pass over 10,000 images",
                "compared with": "1,000 images",
                "aim": "<= 1.05 x",
                "found": f"{many / few:.3f} x",
                "reached": "yes" if many / few <= 1.05 else "no",
                "of the pass as torch comes": "",
                "time": "",
                "peak memory": f"{many:,.0f} MB",
            }
        )
    order = ["work", "found", "aim", "reached", "of the pass as torch comes", "time", "peak memory", "compared with"]
    return pd.DataFrame(lines)[order].set_index("work")


def training_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per way of training that was measured, as text.

    Parameters
    ----------
    results : mapping
        What ``benchmarks/results.json`` holds; rows that were not run are left out.
    """
    rows = results["rows"]
    lines = [
        {
            "work": row["work"],
            "found": f"{row['share']:.1%}" if "target" in row else f"{row['times_faster']:.1f} x faster",
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


def bfloat16_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return, per network and layer, how much of the lists of the strongest stimuli bfloat16 leaves, as text.

    Parameters
    ----------
    results : mapping
        What ``benchmarks/results.json`` holds.
    """
    lines = [
        {
            "network": PAPER_ARCHITECTURES[row["architecture"]],
            "layer": row["layer"],
            "images shared, mean": f"{row['shared']:.1%}",
            "images shared, worst channel": f"{row['least']:.0%}",
            "same strongest image": f"{row['same_first']:.0%}",
        }
        for row in results["rows"]["bfloat16"]
    ]
    return pd.DataFrame(lines).set_index(["network", "layer"])
