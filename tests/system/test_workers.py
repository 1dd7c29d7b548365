"""Blocks dealt out to threads."""

import threading

import pytest
import torch

from infonerf.system.workers import LEAST_WORK, limit, n_workers, share_out

CPU = torch.device("cpu")


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_every_block_once_and_in_order(four_threads):
    assert share_out(list, range(10), 4) == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]
    assert share_out(list, range(2), 4) == [[0], [1]]
    assert torch.get_num_threads() == 4


def test_threads_of_their_own(four_threads):
    """Side by side, with a fair share of the threads each, and without the caller's grad mode."""
    barrier = threading.Barrier(2, timeout=20)

    def work(blocks):
        barrier.wait()
        return threading.current_thread(), torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        results = share_out(work, [1, 2], 2)
    assert len({thread for thread, _, _ in results} | {threading.current_thread()}) == 3
    assert [rest for _, *rest in results] == [[2, True], [2, True]]


def test_a_threads_number_is_its_own(four_threads):
    """Also where the caller sets the number that all share before the thread's first operation."""
    ready, go, seen = threading.Event(), threading.Event(), []

    def work():
        limit(2)
        ready.set()
        go.wait(20)
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(20)
    torch.set_num_threads(4)
    go.set()
    thread.join()
    assert seen == [2]


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 2), (8, 8), (12, 6), (16, 8), (20, 5)])
def test_no_thread_is_left_idle(monkeypatch, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert n_workers(CPU, 1e12) == expected
    assert n_workers(CPU, 1e6) == n_workers(torch.device("meta"), 1e12) == 1


@pytest.mark.parametrize(("parts", "expected"), [(0, 1), (1.9, 1), (2, 2), (3, 2), (5.5, 4), (8, 8), (50, 8)])
def test_no_thread_has_too_little_to_do(monkeypatch, parts, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert n_workers(CPU, parts * LEAST_WORK) == expected


def test_an_error_is_the_callers(four_threads):
    with pytest.raises(ZeroDivisionError):
        share_out(lambda blocks: 1 / (blocks[0] - 2), [1, 2, 3], 4)
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("blocks", "workers"), [([], 4), ([1], 4), ([1, 2], 1)])
def test_the_caller_alone(four_threads, blocks, workers):
    work = [(threading.current_thread(), blocks)]
    assert share_out(lambda part: (threading.current_thread(), part), blocks, workers) == work
