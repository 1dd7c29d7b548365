"""Ranks: sums, rows and agreements of processes, and that none outlives another one."""

import os
import re
import signal
import sys
import time

import pytest
import torch

from infonerf.system.errors import InputError
from infonerf.system.ranks import ENVIRONMENT, Ranks
from support import ranks as support

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


@pytest.mark.parametrize("size", [2, 3])
def test_sums_rows_and_agreements(tmp_path, size):
    def tensors(rank):
        generator = torch.Generator().manual_seed(rank)
        draw = [torch.rand(shape, generator=generator) for shape in ((2, 3), (), (4, 2))]
        return [draw[0], draw[1], draw[2].t(), torch.arange(3) * (rank + 1), draw[0].double()]

    def rows(rank):  # none of the first rank
        return torch.full((2 * rank, 3), float(rank), requires_grad=True)

    def work(ranks):
        summed = [tensor.requires_grad_(tensor.is_floating_point()) for tensor in tensors(ranks.rank)]
        ranks.sum_(summed)
        gathered = ranks.gather_rows(rows(ranks.rank), [2 * rank for rank in range(size)])
        empty = ranks.gather_rows(torch.ones(0, 2), [0] * size)
        ranks.barrier()
        agreed = ranks.agree(ranks.rank == 1), ranks.agree(False), ranks.agree(-ranks.rank)
        return summed, gathered, empty, agreed, ranks.of_first(lambda: [ranks.rank, os.getpid()]), os.getpid()

    found = support.results(size, work, tmp_path)
    for summed, gathered, empty, agreed, of_first, _ in found:
        for tensor, parts in zip(summed, zip(*map(tensors, range(size)), strict=True), strict=True):
            torch.testing.assert_close(tensor.detach(), sum(parts))
        assert torch.equal(gathered, torch.cat([rows(rank) for rank in range(size)]).detach())
        assert not gathered.requires_grad
        assert empty.shape == (0, 2)
        assert agreed == (1, 0, 0)
        assert of_first == [0, found[0][-1]]


def test_an_error_of_one_is_an_error_of_all(tmp_path):
    def failing(ranks, error):
        if ranks.rank == 1:
            raise error

    def work(ranks):
        caught = []
        for error in (InputError("scene: not here"), OSError(28, "No space left on device", "file")):
            try:
                with ranks.together():
                    failing(ranks, error)
            except (InputError, OSError) as raised:
                caught.append((type(raised), str(raised)))
        try:
            ranks.of_first(lambda: failing(Ranks(1, 2), InputError("no checkpoint")))
        except InputError as raised:
            caught.append((raised.of_all_ranks, str(raised)))
        return caught

    expected = [(InputError, "scene: not here"), (OSError, "[Errno 28] No space left on device: 'file'"),
                (True, "no checkpoint")]  # fmt: skip
    assert support.results(2, work, tmp_path) == [expected, expected]


def test_what_ranks_must_have_in_common(tmp_path):
    def work(ranks):
        ranks.require_same({"scene": 1, "options": {"N_rand": 64}})
        try:
            ranks.require_same({"scene": 1, "options": {"N_rand": 64 + (ranks.rank == 2)}})
        except InputError as error:
            return str(error)

    found = support.results(3, work, tmp_path)
    assert found == [found[0]] * 3
    assert re.fullmatch(r"torchrun: rank 2 \(on .+\) has another options than rank 0 \(on .+\), .*", found[0])


def test_no_rank_outlives_one_that_is_killed(tmp_path):
    """Neither in a collective, nor where it meets none."""

    def work():
        with Ranks.from_environment() as ranks:
            ranks.barrier()
            if ranks.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if ranks.rank == 2:
                time.sleep(60)
            ranks.sum_([torch.ones(3)])

    started = time.monotonic()
    assert support.statuses(support.start(3, work, tmp_path)) == [1, -9, 1]
    assert time.monotonic() - started < 10
    said = "".join(support.printed(tmp_path, "err"))
    assert said.count("error: rank 1 has ended, and so all others; what was saved is kept") == said.count("rank") == 1


def test_an_error_of_one_alone_ends_the_others_without_a_word(tmp_path):
    def work():
        with Ranks.from_environment() as ranks:
            if ranks.rank == 1:
                raise ValueError("of mine")
            ranks.barrier()

    assert support.statuses(support.start(3, work, tmp_path), 10) == [1, 1, 1]
    first, second, third = support.printed(tmp_path, "err")
    assert "ValueError: of mine" in second
    assert first == third == ""


@pytest.mark.parametrize("n", [0, 2, 7])
def test_shares(n):
    assert [Ranks(rank, 3).share(n) for rank in range(3)] == [{0: [0, 0, 0], 2: [1, 1, 0], 7: [3, 2, 2]}[n]] * 3


def test_one_process_does_nothing(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "1" if name == "WORLD_SIZE" else "0")
    with Ranks.from_environment() as ranks:
        part = torch.ones(2, 3)
        ranks.sum_([part])
        ranks.use(torch.device("cuda:7"))
        assert ranks.gather_rows(part, [2]) is part
        assert torch.equal(part, torch.ones(2, 3))
        assert (ranks.first, ranks.size, ranks.share(5), ranks.agree(3)) == (True, 1, [5], 3)
        with pytest.raises(InputError, match="mine"):
            ranks.of_first(lambda: exec("raise InputError('mine')", {"InputError": InputError}))
    assert ranks.launcher == ["python"]


@pytest.mark.parametrize(("here", "machines", "expected"), [
    ("4", "1", "torchrun --nproc_per_node 4"),
    ("2", "2", "torchrun --nproc_per_node 2 --nnodes 2 --rdzv_backend c10d --rdzv_endpoint HOST:PORT"),
    ("3", "2", "python"),
])  # fmt: skip
def test_how_they_are_started_again(monkeypatch, here, machines, expected):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    monkeypatch.setenv("GROUP_WORLD_SIZE", machines)
    assert " ".join(Ranks(0, 4).launcher) == expected
