"""`python -m benchmarks`: every row in a process of its own; the table on the screen, everything in results.json."""

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from benchmarks import measure
from benchmarks.rows import ROWS
from rfviz.pages.evidence import speed

RESULTS = Path(__file__).with_name("results.json")
MEMORY_RUNS = 2
"""The largest memory of a process differs from run to run."""


def in_a_process(row: str) -> list[dict[str, Any]]:
    environment = dict(os.environ)
    if row == "floor_as_torch_comes":
        environment["RFVIZ_KEEP_MEMORY"] = "0"
        environment.pop("GLIBC_TUNABLES", None)  # in which this process hands the same on
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks", "--row", row]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"benchmarks: the row {row} failed with exit code {done.returncode}.")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="just these rows; the others keep their results")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        for row in ROWS[given.row]():
            print(json.dumps(row), flush=True)
        return
    commit = measure.commit()  # of before the results are written, which changes the tree
    kept = results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    machine = measure.machine()
    if kept.get("machine", machine) != machine:  # beside what was measured on the other one, not in its place
        elsewhere = kept.setdefault("elsewhere", [])
        results = next((each for each in elsewhere if each["machine"] == machine), {})
        kept["elsewhere"] = [each for each in elsewhere if each is not results] + [results]
    results |= {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "versions": measure.versions(),
    }
    commits, rows = results.setdefault("commits", {}), results.setdefault("rows", {})
    for row in tqdm(given.only or list(ROWS), unit="row"):
        runs = MEMORY_RUNS if row.startswith("memory") else 1
        rows[row], commits[row] = [found for _ in range(runs) for found in in_a_process(row)], commit
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")  # now: the next row may fail
    print(speed.benchmark_table(results).to_string())
    print(speed.elsewhere_table(kept).to_string())
    print(speed.profile_table(results).to_string())
    print(speed.training_table(results).to_string())
    print(f"\nEverything is in {RESULTS}.")


if __name__ == "__main__":
    main()
