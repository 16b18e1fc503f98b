"""Which ranks share memory: found out by trying, not by comparing the names of hosts.

Two containers of one host may share no memory, two ranks of one name may run on two hosts, and a
process may not be allowed to look into another's. So every rank makes a scrap of memory with a
random token in it, and every other one tries to read it.
"""

import contextlib
import secrets
from collections.abc import Sequence

import numpy as np

from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.shared_memory import SharedMemory

_TOKEN_BYTES = 32


def find_groups(comm: Communicator) -> list[list[int]]:
    """The ranks that share memory, as groups in the order of their first ranks.

    Every rank must call it, and gets the same answer.
    """
    token = secrets.token_bytes(_TOKEN_BYTES)
    with contextlib.ExitStack() as stack:
        path = ""
        with contextlib.suppress(OSError):
            scrap = stack.enter_context(SharedMemory.create(_TOKEN_BYTES))
            scrap.array(np.uint8, 0, _TOKEN_BYTES)[:] = np.frombuffer(token, np.uint8)
            path = scrap.path
        scraps = all_gather_data(comm, [path, token.hex()])
        seen = [rank for rank, (path, text) in enumerate(scraps) if _can_read(path, text)]
        return group_by_sight(all_gather_data(comm, seen))


def group_by_sight(sees: Sequence[Sequence[int]]) -> list[list[int]]:
    """Groups from which rank can read whose memory (`sees`, for every rank).

    A rank joins the first group whose every member it sees and is seen by.

    >>> group_by_sight([[0, 2], [1], [0, 2], [0, 3]])
    [[0, 2], [1], [3]]
    """
    groups: list[list[int]] = []
    for rank in range(len(sees)):
        for group in groups:
            if all(other in sees[rank] and rank in sees[other] for other in group):
                group.append(rank)
                break
        else:
            groups.append([rank])
    return groups


def _can_read(path: str, token: str) -> bool:
    if not path:
        return False
    try:
        with SharedMemory.attach(path, _TOKEN_BYTES) as scrap:
            found = scrap.array(np.uint8, 0, _TOKEN_BYTES).tobytes()
    except (OSError, ValueError):
        return False
    return found.hex() == token
