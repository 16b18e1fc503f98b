"""Whether a master can be reached, found out within seconds: Spark takes 66 s and 136 lines."""

import queue
import socket
import struct
import threading
import time
from dataclasses import dataclass

from sixfold.core.errors import UserError
from sixfold.distributed.engines.spark_master import Master, brief

REACH_S = 4.0
"""A TCP connection within a cluster takes milliseconds; a name server may need seconds."""

Answers = queue.SimpleQueue["tuple[str, OSError | Reached]"]


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A master that can be connected to."""

    local_address: str  # of the interface of this host by which it was reached
    is_spark: bool  # whether it has answered as Spark does; otherwise it has said nothing


def reach(master: Master, *, timeout_s: float = REACH_S) -> Reached | None:
    """Make sure that one of a cluster's masters can be connected to, within so many seconds.

    Returns the first that answered as Spark does, or else one that said nothing; None where no
    standalone master was called.
    """
    if not master.addresses:
        return None
    answers: Answers = queue.SimpleQueue()
    for host, port in master.addresses:
        # Threads, because nothing bounds the time that resolving a name may take.
        threading.Thread(
            target=_call,
            args=(host, port, master.kind == "standalone", timeout_s, answers),
            daemon=True,
            name="sixfold-reach",
        ).start()
    deadline = time.monotonic() + timeout_s
    failures = {f"{host}:{port}": "no answer" for host, port in master.addresses}
    silent: Reached | None = None
    for _ in master.addresses:
        try:
            name, answer = answers.get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            break
        if isinstance(answer, OSError):
            failures[name] = brief(answer)
        elif answer.is_spark:
            return answer
        else:
            silent = answer
    if silent is not None:
        return silent if master.kind == "standalone" else None
    details = "; ".join(f"{name}: {why}" for name, why in failures.items())
    remedy = (
        "check that it runs (sbin/start-master.sh) and that host and port are those on its web page"
        if master.kind == "standalone"
        else "check that host and port are those that `kubectl cluster-info` tells"
    )
    raise UserError(f"the Spark master {master.url} cannot be reached ({details}): {remedy}")


def _call(
    host: str,
    port: int,
    ask: bool,
    timeout_s: float,
    answers: Answers,
) -> None:
    name = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            is_spark = ask and _is_spark(connection, timeout_s / 2)
            address = str(connection.getsockname()[0])
            answers.put((name, Reached(local_address=address, is_spark=is_spark)))
    except OSError as error:
        answers.put((name, error))
    except UnicodeError:  # a label of the name is empty or too long
        answers.put((name, OSError("not a host name")))


def _is_spark(connection: socket.socket, timeout_s: float) -> bool:
    """Ask, in Spark's protocol, for a file that nobody serves: Spark says so.

    A message is its length (8 bytes, these included), its type (1 byte) and its fields
    (org.apache.spark.network.protocol.MessageEncoder); type 6 asks for a stream and 8 refuses it.
    """
    path = b"/files/sixfold"
    question = struct.pack(">bi", 6, len(path)) + path
    answer = b""
    try:
        connection.settimeout(timeout_s)
        connection.sendall(struct.pack(">q", 8 + len(question)) + question)
        while len(answer) < 9 or len(answer) < struct.unpack_from(">q", answer)[0] < 1 << 16:
            received = connection.recv(4096)
            answer += received
            if not received or answer.startswith((b"HTTP/", b"<")):
                break
    except OSError:
        pass  # it may want encryption, or be slow: the JVM will find out
    if answer.startswith((b"HTTP/", b"<")):
        raise OSError("that is a web page; applications use another port, usually 7077")
    return len(answer) >= 9 and answer[8] == 8
