"""Tests that cannot fail show nothing: each of these copies of the code is broken in one line; a test must say so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
SOAK = bool(os.environ.get("RFVIZ_SOAK"))


class Broken(NamedTuple):
    what: str
    file: str
    right: str
    wrong: str
    caught_by: str
    """A test, or several with a space between."""


COPIES = (
    Broken(
        "files are written in place, not whole or not at all",
        "rfviz/storage/files.py", "os.replace(temporary, path)", "path.write_bytes(temporary.read_bytes())",
        "tests/storage/test_files.py::test_who_reads_the_old_file_meanwhile_reads_all_of_it",
    ),
    Broken(
        "what is being written has the name of the finished file",
        "rfviz/storage/files.py", "temporary = Path(name)", "temporary = path",
        "tests/storage/test_files.py::test_a_killed_writer_leaves_the_old_file",
    ),
    Broken(
        "responses that are NaN are not looked for",
        "rfviz/kernels/responses/passes.py", "maps.refuse_not_finite(self.name, index)", "pass",
        "tests/faults/test_numbers.py::test_what_is_not_finite_stops_a_pass_and_names_the_image",
    ),
    Broken(
        "weights that are NaN are not looked for",
        "rfviz/nets/models.py", "if not value.isfinite().all():", "if False:",
        "tests/faults/test_untrusted.py::test_weights_that_are_not_finite_are_refused_by_name",
    ),
    Broken(
        "a training goes on with a loss that is NaN",
        "rfviz/training/trainer.py", "not math.isfinite(lately())", "False",
        "tests/training/test_training.py::test_loss_that_is_not_finite_names_step_learning_rate_and_checkpoint",
    ),
    Broken(
        "among equal responses, the last image wins",
        "rfviz/kernels/responses/top_stimuli.py", "order = keys.argsort(dim=1)",
        "order = keys.argsort(dim=1, descending=True)",
        "tests/kernels/test_top_stimuli.py",
    ),
    Broken(
        "a receptive field begins one pixel too early",
        "rfviz/nets/receptive_field.py", "start=source.start - geometry.padding * source.stride",
        "start=source.start - geometry.padding * source.stride - 1",
        "tests/nets/test_receptive_field.py",
    ),
    Broken(
        "the mean stimulus is over all neurons, not over those that fire",
        "rfviz/kernels/responses/patch_sums.py", ".sign().to(dtype).clamp_(min=0)",
        ".sign().to(dtype).clamp_(min=1)",
        "tests/kernels/test_mean_stimulus.py tests/kernels/test_patch_sums.py",
    ),
    Broken(
        "noise goes to active channels instead of inactive ones",
        "rfviz/kernels/noise.py",
        "return candidates[row]", 'return active if row == "inactive" else candidates[row]',
        "tests/kernels/test_noise.py",
    ),
    Broken(
        "the noise depends on the place of an image in its batch",
        "rfviz/kernels/noise.py", "draw(number, channel, responses.shape[2:])", "draw(i, channel, responses.shape[2:])",
        "tests/kernels/test_noise.py",
    ),
    Broken(
        "counts are kept in 32 bits",
        "rfviz/kernels/responses/activity.py", "else before + found[name]",
        "else (before if before.is_floating_point() else before.int()) + found[name]",
        "tests/faults/test_numbers.py::test_activity_counts_and_sums_ten_to_the_thirteen_responses",
    ),
    Broken(
        "a stored result is not compared with its hash",
        "rfviz/lab/result.py", "load_tensors(kept.path, ours=True)", "load_tensors(kept.path)",
        "tests/faults/test_untrusted.py::test_a_tampered_result_is_computed_anew_and_said",
    ),
    Broken(
        "a stored result of other parameters is taken for this one",
        "rfviz/lab/result.py", "if described == (self.name, arguments, self.code) and run", "if run",
        "tests/faults/test_untrusted.py::test_the_file_of_another_result_is_not_taken_for_this_one",
    ),
    Broken(
        "a checkpoint is not compared with its hash",
        "rfviz/storage/files.py", "if written is not None and", "if False and",
        "tests/faults/test_untrusted.py::test_no_changed_byte_of_a_checkpoint_is_overlooked",
    ),
    Broken(
        "kernels outlive a Ctrl-C",
        "rfviz/book/batch.py", "                    kernels.kill_all()", "                    pass",
        "tests/faults/test_interrupted.py::test_ctrl_c_ends_a_run_and_says_how_to_go_on",
    ),
    Broken(
        "mean stimuli are summed in 32 bits",
        "rfviz/kernels/responses/mean_stimulus.py",
        "self.total = torch.zeros(channels, colours, rows, columns, dtype=torch.float64)",
        "self.total = torch.zeros(channels, colours, rows, columns)",
        "tests/faults/test_numbers.py::test_mean_stimuli_of_ten_to_the_thirteen_patches",
    ),
    Broken(
        "two processes compute the same result at the same time",
        "rfviz/storage/lock.py", "lock.acquire(timeout=UNSAID)", "return (yield)",
        "tests/faults/test_two_processes.py::test_the_second_waits_and_reads",
    ),
    Broken(
        "half-written files of killed processes stay",
        "rfviz/storage/lock.py", "if lock.lock_counter == 1:", "if False:",
        "tests/faults/test_two_processes.py::test_who_is_killed_keeps_nobody_waiting_and_leaves_nothing_half_written",
    ),
    Broken(
        "half-written files of a process at work are removed",
        "rfviz/storage/lock.py", "if lock.lock_counter == 1:", "if True:",
        "tests/faults/test_two_processes.py::test_what_another_process_is_writing_is_not_taken_for_left_over",
    ),
    Broken(
        "weights are unpickled",
        "rfviz/nets/weights.py", "weights_only=True", "weights_only=False",
        "tests/nets/test_models.py::test_code_in_a_file_is_not_run",
    ),
    Broken(
        "links that lead in circles are followed",
        "rfviz/images/folders.py", "folders.remove(name)", "pass",
        "tests/faults/test_odd_images.py::test_every_file_is_used_or_named",
    ),
    Broken(
        "broken images are dropped without a word",
        "rfviz/images/folders.py", "self.left_out[self.files[index]] = _reason(result)", "pass",
        "tests/faults/test_odd_images.py::test_every_file_is_used_or_named",
    ),
    Broken(
        "a name may lead out of the folder of results",
        "rfviz/lab/result.py", "if Path(stem).name != stem:", "if False:",
        "tests/faults/test_untrusted.py::test_no_name_leads_out_of_the_folder_of_results",
    ),
    Broken(
        "a build that fails takes the place of the last good book",
        "rfviz/book/html.py", "    if code:", "    if False:",
        "tests/book/test_book.py::test_a_failing_build_keeps_the_last_good_html",
    ),
)  # fmt: skip


@pytest.mark.parametrize("broken", COPIES, ids=lambda broken: broken.what)
def test_the_code_is_there_to_be_broken(broken):
    """In the short form: what is broken is still one place of the code."""
    assert (ROOT / broken.file).read_text(encoding="utf-8").count(broken.right) == 1


def copied(folder: Path) -> Path:
    skipped = shutil.ignore_patterns(".venv", ".oldest", ".audit", "runs", "_build", "node_modules", "__pycache__")
    return Path(shutil.copytree(ROOT, folder / "copy", ignore=skipped))


def run(copy: Path, tests: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=copy, env={k: v for k, v in os.environ.items() if k != "RFVIZ_SOAK"} | {"PYTHONPATH": str(copy)},
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip


@pytest.mark.skipif(not SOAK, reason="takes minutes: make soak")
def test_a_copy_that_is_not_broken_passes(tmp_path):
    """The control: what the broken copies fail is not failed by a copy alone."""
    done = run(copied(tmp_path), sorted({test for broken in COPIES for test in broken.caught_by.split()}))
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.skipif(not SOAK, reason="takes some ten minutes: make soak")
@pytest.mark.parametrize("broken", COPIES, ids=lambda broken: broken.what)
def test_a_broken_copy_is_caught(tmp_path, broken):
    copy = copied(tmp_path)
    source = copy / broken.file
    text = source.read_text(encoding="utf-8")
    assert text.count(broken.right) == 1
    source.write_text(text.replace(broken.right, broken.wrong), encoding="utf-8")
    done = run(copy, broken.caught_by.split())
    assert done.returncode == 1, done.stdout[-2000:]
    assert "FAILED" in done.stdout
