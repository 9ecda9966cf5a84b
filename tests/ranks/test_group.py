"""The ranks of a training agree, fail together, and name the one that differs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from diptych.backends.protocol import Backend
from diptych.errors import MachineError, UserError
from diptych.ranks import ALONE, Ranks
from diptych.training.group import Group
from waiting import PATIENCE


class Meeting:
    """`Backend.gather` for ranks that are threads of this process."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world, timeout=PATIENCE)
        self.rows: dict[int, Any] = {}

    def of(self, rank: int) -> Backend:
        def gather(values: Any) -> Any:
            assert values.dtype == np.int32 and (values >= 0).all()
            self.rows[rank] = values
            self.barrier.wait()
            table = np.stack([self.rows[each] for each in sorted(self.rows)])
            self.barrier.wait()
            return table

        return cast(Backend, type("Meeting", (), {"gather": staticmethod(gather)}))


def each(world: int, work: Callable[[Group], Any]) -> list[Any]:
    """The result, or the error, of every rank."""
    meeting, found = Meeting(world), [None] * world

    def run(rank: int) -> None:
        try:
            found[rank] = work(Group(Ranks(rank, world, rank, "test"), meeting.of(rank)))
        except Exception as error:
            found[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_ranks_agree_on_a_number():
    assert each(3, lambda group: group.most(15 * (group.ranks.rank == 1))) == [15] * 3
    assert each(3, lambda group: group.of_first(group.ranks.rank + 4)) == [4] * 3


def test_the_rank_that_differs_is_named_on_all():
    digests = ["ab" * 32, "ab" * 32, "ab" * 31 + "ac", "ab" * 32]
    found = each(4, lambda group: group.same("weights", digests[group.ranks.rank], "resume"))
    for error in found:
        assert isinstance(error, UserError)
        assert "rank 2 has other weights than rank 0" in str(error) and "resume" in str(error)
    assert each(2, lambda group: group.same("images", None, "-")) == [None, None]


@pytest.mark.parametrize("kind", [UserError, MachineError])
@pytest.mark.parametrize("rank", [0, 2])
def test_an_error_of_one_rank_is_raised_on_all(kind, rank):
    def work(group: Group) -> None:
        with group.together():
            if group.ranks.rank == rank:
                raise kind("pictures/ä.png: cannot be read")

    for error in each(3, work):
        assert type(error) is kind and "pictures/ä.png: cannot be read" in str(error)
    others = [str(error) for i, error in enumerate(each(3, work)) if i != rank]
    assert all(("(rank 2 of 3)" in text) == (rank == 2) for text in others)


def test_the_first_rank_speaks_where_several_fail():
    def work(group: Group) -> None:
        with group.together():
            raise UserError(f"by {group.ranks.rank}")

    assert [str(error) for error in each(3, work)] == ["by 0", "by 0", "by 0"]


def test_a_bug_of_one_rank_is_not_hidden():
    group = Group(Ranks(1, 2, 1, "test"), None)
    with pytest.raises(ZeroDivisionError), group.together():
        raise ZeroDivisionError


def test_alone_nothing_is_exchanged():
    group = Group(ALONE, None)
    assert group.most(3) == group.of_first(3) == 3
    group.same("weights", "ab", "-")
    group.wait()
    with pytest.raises(UserError), group.led(), group.together():
        raise UserError("alone")
