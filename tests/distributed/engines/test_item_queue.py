import pytest

from sixfold.distributed.engines.engine import ItemQueue


def test_items_keep_their_order_and_come_back_first() -> None:
    queue = ItemQueue(3)
    assert [queue.take(), queue.take()] == [0, 1]
    queue.put_back(1)
    assert [queue.take(), queue.take(), queue.take()] == [1, 2, None]
    assert not queue


def test_an_item_is_ready_when_all_before_it_are_done() -> None:
    queue = ItemQueue(3, after=[[1, 2], [], [1]])
    assert [queue.take(), queue.take()] == [1, None]
    assert queue
    queue.done(1)
    assert [queue.take(), queue.take()] == [2, None]
    queue.done(2)
    assert queue.take() == 0


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ([[1], [0]], "wait for each other"),
        ([[0], []], "wait for each other"),
        ([[5], []], "does not exist"),
        ([[]], "1 lists"),
    ],
)
def test_what_can_never_be_satisfied_is_refused(after: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemQueue(2, after)
