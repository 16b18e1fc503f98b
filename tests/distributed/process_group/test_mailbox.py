"""Messages through common memory: whole, in order, and only where there is room."""

import socket
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sixfold.core.errors import PeerLostError
from sixfold.distributed.process_group import mesh as mesh_module
from sixfold.distributed.process_group.communicator import Buffer
from sixfold.distributed.process_group.mailbox import CAPACITY_BYTES, PIECE_BYTES, Mailbox
from sixfold.distributed.process_group.mesh import Mailboxes, Mesh, share_memory


def pair() -> tuple[Mailbox, Mailbox]:
    sender = Mailbox.create()
    receiver = Mailbox.accept(sender.offer())
    assert receiver is not None
    sender.seal()
    return sender, receiver


def content(number: int, size: int) -> Buffer:
    return (np.arange(size) * (number + 1) % 251).astype(np.uint8)


def fetch(box: Mailbox, size: int) -> Buffer:
    found = np.zeros(size, np.uint8)
    assert box.next() == size
    done = 0
    while done < size:
        count = box.move(found[done:])
        assert count > 0
        done += count
    return found


def leave(box: Mailbox, payload: Buffer) -> None:
    assert box.begin(len(payload))
    while len(payload):
        payload = payload[box.move(payload) :]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, PIECE_BYTES, PIECE_BYTES + 1, 700_001])
def test_messages_arrive_in_order_however_often_the_ring_goes_round(size: int) -> None:
    sender, receiver = pair()
    assert receiver.next() is None
    for number in range(2 * CAPACITY_BYTES // size if size > 1000 else 50):
        leave(sender, content(number, size))
        np.testing.assert_array_equal(fetch(receiver, size), content(number, size))
    assert receiver.next() is None
    assert not receiver.ready()
    sender.close()
    receiver.close()


def test_a_full_ring_takes_no_more_until_it_is_read() -> None:
    sender, receiver = pair()
    payload = content(1, 2 * CAPACITY_BYTES)
    assert sender.begin(len(payload))
    done = 0
    while count := sender.move(payload[done:]):
        done += count
    assert done == CAPACITY_BYTES - 64
    assert not sender.ready()
    assert not sender.begin(1)
    assert receiver.next() == len(payload)
    found = np.zeros_like(payload)
    read = receiver.move(found)
    assert sender.ready()
    assert sender.move(payload[done:]) > 0
    np.testing.assert_array_equal(found[:read], payload[:read])
    sender.close()
    receiver.close()


def test_sleep_is_seen_by_the_other_side_only_while_it_lasts() -> None:
    sender, receiver = pair()
    receiver.will_sleep(True)
    assert sender.other_sleeps()
    receiver.will_sleep(False)
    assert not sender.other_sleeps()
    sender.will_sleep(True)
    assert receiver.other_sleeps()
    sender.will_sleep(False)
    assert not receiver.other_sleeps()
    sender.close()
    receiver.close()


def test_a_wrong_token_or_a_wrong_path_is_no_mailbox() -> None:
    with socket.socket():  # keeps a descriptor that is no memory
        sender = Mailbox.create()
        assert Mailbox.accept(sender.offer() | {"token": "00"}) is None
        assert Mailbox.accept(sender.offer() | {"path": "/proc/self/fd/99999"}) is None
        assert Mailbox.accept({}) is None
        sender.close()


def together(functions: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive(), "deadlock"


def linked(share: bool) -> tuple[list[Mesh], list[dict[int, Mailboxes]]]:
    left, right = socket.socketpair()
    ends = [{1: left}, {0: right}]
    boxes: list[dict[int, Mailboxes]] = [{}, {}]
    if share:

        def run(rank: int) -> None:
            boxes[rank] = share_memory(ends[rank])

        together([lambda: run(0), lambda: run(1)])
    return [Mesh(ends[rank], spin=False, mailboxes=boxes[rank]) for rank in range(2)], boxes


def test_messages_do_not_pass_through_the_socket() -> None:
    made, boxes = linked(share=True)
    array = np.arange(40_000.0)
    for _ in range(3):
        made[0].exchange({1: array}, {})
        received = np.zeros_like(array)
        made[1].exchange({}, {0: received})
        np.testing.assert_array_equal(received, array)
    out = boxes[0][1].out
    assert out.messages == 3
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
    assert boxes == [{}, {}]
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


@pytest.mark.parametrize("spin", [False, True])
def test_exchanges_of_more_than_the_ring_holds(spin: bool) -> None:
    made, _ = linked(share=True)
    arrays = [np.arange(400_000.0) + rank for rank in range(2)]
    received = [np.zeros(400_000) for _ in range(2)]
    for mesh in made:
        mesh._spin_s = 200e-6 if spin else 0.0

    def run(rank: int) -> None:
        for _ in range(5):
            received[rank][:] = 0
            made[rank].exchange({1 - rank: arrays[rank]}, {1 - rank: received[rank]})

    together([lambda: run(0), lambda: run(1)])
    for rank in range(2):
        np.testing.assert_array_equal(received[rank], arrays[1 - rank])
        made[rank].close()


def test_what_a_peer_left_before_it_went_still_arrives() -> None:
    made, _ = linked(share=True)
    made[0].exchange({1: np.arange(100.0)}, {})
    made[0].close()
    received = np.zeros(100)
    made[1].exchange({}, {0: received})
    np.testing.assert_array_equal(received, np.arange(100.0))
    with pytest.raises(PeerLostError):
        made[1].exchange({}, {0: received})
    made[1].close()


@pytest.mark.parametrize("direction", ["send", "receive"])
def test_a_peer_that_goes_while_its_memory_is_waited_for_is_named(direction: str) -> None:
    made, _ = linked(share=True)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            for _ in range(100):
                if direction == "send":
                    made[0].exchange({1: np.zeros(1 << 17)}, {})
                else:
                    made[0].exchange({}, {1: np.zeros(10)})
        except PeerLostError as error:
            errors.append(error)

    def go() -> None:
        time.sleep(0.1)
        made[1].close()

    together([wait, go])
    assert [error.peer for error in errors if isinstance(error, PeerLostError)] == [1]
    made[0].close()


def test_shutting_ends_an_exchange_through_memory() -> None:
    made, _ = linked(share=True)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            made[0].exchange({}, {1: np.zeros(10)})
        except PeerLostError as error:
            errors.append(error)

    def shut() -> None:
        time.sleep(0.1)
        made[0].shut()

    together([wait, shut])
    assert len(errors) == 1
    for mesh in made:
        mesh.close()


def test_two_meshes_that_were_shut_cannot_go_on_through_memory() -> None:
    made, _ = linked(share=True)
    errors: list[BaseException] = []
    for mesh in made:
        mesh.shut()

    def run(rank: int) -> None:
        try:
            made[rank].exchange({1 - rank: np.zeros(10)}, {1 - rank: np.zeros(10)})
        except PeerLostError as error:
            errors.append(error)

    together([lambda: run(0), lambda: run(1)])
    assert len(errors) == 2
    for mesh in made:
        mesh.close()
