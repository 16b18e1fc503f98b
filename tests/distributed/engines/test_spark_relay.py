"""Ranks that cannot call the launcher's host, and do so through a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.distributed.engines.test_elastic import STEPS, Counter

from sixfold.distributed.engines import spark_relay
from sixfold.distributed.engines.spark_relay import Relay, reached
from sixfold.distributed.process_group.membership import Place, run_rank
from sixfold.distributed.process_group.rendezvous import Rendezvous

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

NOWHERE = ("192.0.2.1", 9)  # for documentation: nobody is there
SIZE = 3


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher answers directly."""
    monkeypatch.setattr(spark_relay, "_answers", lambda _: False)
    monkeypatch.setattr(spark_relay, "_own_address", lambda _: "127.0.0.1")


@pytest.mark.parametrize("tls", [False, True])
def test_ranks_meet_and_work_through_the_folder(
    unreachable: None, tmp_path: Path, tls: bool
) -> None:
    folder = tmp_path / "relay"
    events: list[Any] = []

    def rank(number: int) -> None:
        place = Place(address=NOWHERE, secret=rendezvous.secret, rank=number, size=SIZE)
        with reached(place.address, folder) as (address, interface):
            place = dataclasses.replace(place, address=address, interface=interface)
            run_rank(Counter(), place)

    rendezvous = Rendezvous(SIZE, least=1, tls=tls, on_event=lambda _, event: events.append(event))
    with contextlib.closing(rendezvous):
        with contextlib.closing(Relay(folder, rendezvous.address)):
            threads = [threading.Thread(target=rank, args=[number]) for number in range(SIZE)]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 30.0
            while not rendezvous.now.finished:
                rendezvous.poll(0.05)
                assert rendezvous.now.fault is None
                assert time.monotonic() < deadline
            for thread in threads:
                thread.join()
        assert [found["count"] for found in rendezvous.now.results] == [STEPS] * SIZE
    assert {event["rank"] for event in events} == set(range(SIZE))
    assert not folder.exists()


def test_who_can_call_directly_does(tmp_path: Path) -> None:
    with (
        contextlib.closing(Rendezvous(1)) as rendezvous,
        reached(rendezvous.address, tmp_path) as found,
    ):
        assert found == (rendezvous.address, None)
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_that_no_longer_writes_is_missed(
    monkeypatch: pytest.MonkeyPatch, unreachable: None, tmp_path: Path
) -> None:
    monkeypatch.setattr(spark_relay, "SILENT_S", 0.2)
    with (
        reached(NOWHERE, tmp_path) as (address, _),
        socket.create_connection(address) as connection,
    ):
        assert connection.recv(1) == b""
