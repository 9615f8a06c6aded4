"""How fast is it, and against what? `make bench` runs every row, prints the table and writes results.json.

Each row runs in a process of its own, in which the work and what it is compared with take turns, so that a machine
whose speed drifts does not matter; the median of the ratios counts.
"""

from rfviz.book import process

process.prepare()  # as the command `rfviz` does, before torch is loaded
