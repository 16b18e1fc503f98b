from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sixfold.core.errors import UserError
from sixfold.distributed.engines.spark_master import Master, parse_master
from sixfold.distributed.engines.spark_reach import Reached, reach


def test_only_standalone_masters_are_called() -> None:
    assert reach(parse_master("local[2]")) is None


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """A server that answers the first bytes it gets with something; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                if answer is not None:
                    connection.sendall(answer)
                connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


REFUSAL = struct.pack(">qbi", 8 + 1 + 4 + 4, 8, 4) + b"what"


@pytest.mark.parametrize(
    ("answer", "is_spark"), [(REFUSAL, True), (b"", False), (b"220 hello", False)]
)
def test_a_server_is_reached_and_known_by_its_answer(answer: bytes, is_spark: bool) -> None:
    with server(answer) as port:
        reached = reach(parse_master(f"spark://127.0.0.1:{port}"), timeout_s=0.5)
    assert reached == Reached(local_address="127.0.0.1", is_spark=is_spark)


def test_a_web_page_is_told_from_a_master() -> None:
    with (
        server(b"HTTP/1.1 400 Bad Request\r\n") as port,
        pytest.raises(UserError, match="web page"),
    ):
        reach(parse_master(f"spark://127.0.0.1:{port}"))


def test_one_of_several_masters_is_enough() -> None:
    with server(REFUSAL) as port:
        reached = reach(parse_master(f"spark://127.0.0.1:1,127.0.0.1:{port}"))
    assert reached is not None
    assert reached.is_spark


@pytest.mark.full
@pytest.mark.spark
def test_a_real_master_is_known(standalone_master: str) -> None:
    assert reach(parse_master(standalone_master)) == Reached(
        local_address="127.0.0.1", is_spark=True
    )


def test_masters_that_refuse_or_do_not_exist_are_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        reach(parse_master("spark://127.0.0.1:1,no-such-host.invalid:7077"))
    assert time.monotonic() - began < 5.0
    assert len(str(caught.value).splitlines()) == 1
    assert "127.0.0.1:1: Connection refused" in str(caught.value)
    assert "no-such-host.invalid:7077" in str(caught.value)


def test_a_master_that_does_not_answer_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(*_: object, **__: object) -> None:
        time.sleep(0.5)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", slow)
    master = Master(url="spark://a:1", kind="standalone", addresses=(("a", 1),))
    began = time.monotonic()
    with pytest.raises(UserError, match="a:1: no answer"):
        reach(master, timeout_s=0.1)
    assert time.monotonic() - began < 0.4
    time.sleep(0.6)  # for the thread that still waits
