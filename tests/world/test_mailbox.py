"""Messages through common memory: whole, in order, and only where there is room."""

import socket
import threading

import numpy as np
import pytest

from sixfold.errors import PeerLostError
from sixfold.world import mesh as mesh_module
from sixfold.world.mailbox import LARGEST_BYTES, SLOTS, SMALLEST_BYTES, Mailbox
from sixfold.world.mesh import Mailboxes, Mesh, share_memory


def pair() -> tuple[Mailbox, Mailbox]:
    sender = Mailbox.create()
    receiver = Mailbox.accept(sender.offer())
    assert receiver is not None
    sender.seal()
    return sender, receiver


def message(number: int, size: int = SMALLEST_BYTES) -> memoryview:
    return memoryview((np.arange(size) * (number + 1) % 251).astype(np.uint8).tobytes())


def test_messages_arrive_in_order_and_full_slots_are_told() -> None:
    sender, receiver = pair()
    fetched = np.empty(SMALLEST_BYTES, np.uint8)
    for turn in range(3):
        for number in range(SLOTS):
            assert sender.put(message(10 * turn + number))
        assert not sender.put(message(99))
        for number in range(SLOTS):
            receiver.take(fetched.data.cast("B"))
            assert fetched.tobytes() == message(10 * turn + number).tobytes()
    sender.close()
    receiver.close()


@pytest.mark.parametrize("size", [1, SMALLEST_BYTES - 1, LARGEST_BYTES + 1])
def test_small_and_large_messages_go_another_way(size: int) -> None:
    sender, receiver = pair()
    assert not sender.put(message(0, size))
    sender.close()
    receiver.close()


def test_a_wrong_token_or_a_wrong_path_is_no_mailbox() -> None:
    with socket.socket():  # keeps a descriptor that is no memory
        sender = Mailbox.create()
        assert Mailbox.accept(sender.offer() | {"token": "00"}) is None
        assert Mailbox.accept(sender.offer() | {"path": "/proc/self/fd/99999"}) is None
        assert Mailbox.accept({}) is None
        sender.close()


def linked(share: bool) -> tuple[list[Mesh], list[dict[int, Mailboxes]]]:
    left, right = socket.socketpair()
    ends = [{1: left}, {0: right}]
    boxes: list[dict[int, Mailboxes]] = [{}, {}]
    if share:

        def run(rank: int) -> None:
            boxes[rank] = share_memory(ends[rank])

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [Mesh(ends[rank], spin=False, mailboxes=boxes[rank]) for rank in range(2)], boxes


def test_middling_messages_do_not_pass_through_the_socket() -> None:
    made, boxes = linked(share=True)
    array = np.arange(40_000.0)
    for _ in range(3):
        made[0].exchange({1: array}, {})
        received = np.zeros_like(array)
        made[1].exchange({}, {0: received})
        np.testing.assert_array_equal(received, array)
    out = boxes[0][1].out
    assert out is not None
    assert out._count == 3
    for mesh in made:
        mesh.close()


def test_a_message_of_another_length_is_found_out() -> None:
    made, _ = linked(share=True)
    made[0].exchange({1: np.zeros(40_000)}, {})
    with pytest.raises(RuntimeError, match="sent 320000 bytes where 320008 were expected"):
        made[1].exchange({}, {0: np.zeros(40_001)})
    for mesh in made:
        mesh.close()


def test_ranks_that_see_no_common_memory_use_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_module, "may_share", lambda: False)
    made, boxes = linked(share=True)
    assert boxes == [{1: Mailboxes(None, None)}, {0: Mailboxes(None, None)}]
    made[0].exchange({1: np.ones(10_000)}, {})
    received = np.zeros(10_000)
    made[1].exchange({}, {0: received})
    assert received.all()
    for mesh in made:
        mesh.close()


def test_a_peer_that_goes_while_memory_is_shared_is_lost() -> None:
    left, right = socket.socketpair()
    right.close()
    with left, pytest.raises(PeerLostError):
        share_memory({1: left})
