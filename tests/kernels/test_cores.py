"""Pieces of work on several cores: the order, the settings of torch, errors, and nothing that is left behind."""

import threading

import pytest
import torch

from benchmarks import rows
from rfviz.kernels import responses
from rfviz.kernels.responses import passes
from rfviz.kernels.responses.cores import ALONE, Cores


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def state():
    return threading.get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled()


@pytest.mark.parametrize("inference", [False, True])
def test_each_piece_is_done_by_a_thread_that_has_one(two_threads, inference):
    running, here = threading.active_count(), threading.get_ident()
    met = threading.Barrier(2)  # of both: neither waits for the other to end
    with Cores() as cores, torch.inference_mode(inference):
        found = cores.each(lambda number: (met.wait(10), number, *state())[1:], range(6))
        assert torch.get_num_threads() == 2
    assert [number for number, *_ in found] == list(range(6))
    assert {rest for *_, rest in found} == {inference}
    assert {threads for _, _, threads, _ in found} == {1}
    assert len({ident for _, ident, _, _ in found}) == 2 and here not in {ident for _, ident, _, _ in found}
    assert torch.get_num_threads() == 2 and threading.active_count() == running
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]  # what begins later has as many threads as before


def test_alone_everything_is_done_here(two_threads):
    assert ALONE.each(lambda _: state(), range(3)) == [state()] * 3
    with Cores() as cores:
        assert cores.each(lambda _: state(), [0]) == [state()]  # one piece is torch's to divide
        assert cores.each(lambda _: state(), []) == []
    assert cores.each(lambda _: state(), range(3)) == [state()] * 3  # when the block has ended
    torch.set_num_threads(1)
    with Cores() as cores:
        assert cores.each(lambda _: state(), range(3)) == [state()] * 3


@pytest.mark.parametrize("wrong", [0, 3, 5])
def test_an_error_in_a_piece_is_the_error_of_the_work(two_threads, wrong):
    def work(number):
        if number == wrong:
            raise ValueError(f"piece {number}")
        return number

    running = threading.active_count()
    with pytest.raises(ValueError, match=f"piece {wrong}"), Cores() as cores:
        cores.each(work, range(6))
    assert threading.active_count() == running and torch.get_num_threads() == 2


def test_threads_that_cannot_begin_leave_nothing_behind(two_threads, monkeypatch):
    running, start, begun = threading.active_count(), threading.Thread.start, []

    def limited(thread):
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(RuntimeError, match="can't start new thread"), Cores():
            pass
    assert threading.active_count() == running and torch.get_num_threads() == 2


def test_the_benchmark_knows_what_is_done_on_several_cores(resnet, some_tiles, monkeypatch):
    done = set()

    class Noting(Cores):
        def each(self, work, pieces):
            done.add(work.__qualname__)
            return super().each(work, pieces)

    monkeypatch.setattr(passes, "Cores", Noting)
    responses.collect(resnet, some_tiles, ["maxpool", "layer1.0"], 2)
    assert done == set(rows.STAGES)
