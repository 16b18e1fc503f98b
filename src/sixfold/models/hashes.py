"""Whether a network depends on `id`, `hash` or the order of a set.

These follow from where objects lie and, for texts, from a number that each process draws: all else
being equal, two processes give other answers. To call them is harmless (what is looked up by an
`id` is found in any process); so the network is built and run several times, each time with other
answers, which within one time are consistent. Other are `id` and `hash` for the code of the user's
modules, and the hash, hence a set's order, of modules, tensors and objects of the user's classes.
The order of sets of texts cannot be changed in a process; that engines start ranks with one seed
for hashes (`HASH_SEED` in `sixfold.core.environment`) makes it the same on all of them.
"""

from __future__ import annotations

import contextlib
import dis
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sixfold.models.observe import Reached

_BITS = 40
_ALIGNED = 16  # What addresses are multiples of
_MAPS: tuple[Callable[[int], int], ...] = (
    lambda n: n,
    lambda n: ~n % (1 << _BITS),  # every bit is another, and larger is smaller
    lambda n: n * 0x9E3779B97F % (1 << _BITS),  # odd, so no two numbers become one
)
"""From the number of an object, in the order of being asked for, to the answer."""

WORLDS = range(len(_MAPS))
_ASKING = {"id", "hash", "set", "frozenset"}
_SET_INSTRUCTIONS = {dis.opmap["BUILD_SET"]}
_BY_ADDRESS: tuple[Any, ...] = (object.__hash__, Tensor.__hash__)


def may_depend(reached: Reached) -> bool:
    """Whether the user's code that a network reaches asks for a hash or makes a set at all."""
    return any(
        _ASKING & set(code.co_names) or _SET_INSTRUCTIONS & set(code.co_code[::2])
        for function in reached.functions
        for code in _codes(function.__code__)
    )


@contextlib.contextmanager
def answering(world: int, reached: Reached) -> Iterator[None]:
    """While open, give this thread the answers of one of the `WORLDS`."""
    answers = _Answers(_MAPS[world])
    with contextlib.ExitStack() as stack:
        kinds: list[Any] = [nn.Module, Tensor, *reached.classes]
        for kind in kinds:
            if (before := kind.__hash__) in _BY_ADDRESS:
                stack.callback(_restore, kind, vars(kind).get("__hash__"))
                kind.__hash__ = _hashed(answers, threading.get_ident(), before)
        for home in {id(f.__globals__): f.__globals__ for f in reached.functions}.values():
            for name, answer in (("id", answers.identity), ("hash", answers.hash)):
                if name not in home:
                    home[name] = answer
                    stack.callback(home.pop, name, None)
        yield


def _hashed(answers: _Answers, thread: int, before: Callable[[Any], int]) -> Callable[[Any], int]:
    def hashed(thing: Any) -> int:
        return answers.number(thing) if threading.get_ident() == thread else before(thing)

    return hashed


def _restore(kind: Any, own: Any) -> None:
    if own is None:
        del kind.__hash__
    else:
        kind.__hash__ = own


@dataclass
class _Answers:
    mapped: Callable[[int], int]
    # Id -> the object, which is kept so that no other gets its id, and its number.
    known: dict[int, tuple[Any, int]] = field(default_factory=dict)
    texts: dict[Any, int] = field(default_factory=dict)

    def number(self, thing: Any) -> int:
        return self.mapped(self.known.setdefault(id(thing), (thing, len(self.known) + 1))[1])

    def identity(self, thing: Any, /) -> int:
        return _ALIGNED * self.number(thing)

    def hash(self, thing: Any, /) -> int:
        found = hash(thing)  # raises where Python's does
        if not _differs(thing):
            return found
        if _is_by_address(thing):
            return self.number(thing)
        return self.mapped(self.texts.setdefault(thing, len(self.texts) + 1))


def _differs(thing: Any) -> bool:
    """Whether the hash of what is no module, tensor or own object is another in each process."""
    if isinstance(thing, (tuple, frozenset)):
        return any(map(_differs, thing))
    return isinstance(thing, (str, bytes)) or _is_by_address(thing)


def _is_by_address(thing: Any) -> bool:
    by: Any = type(thing).__hash__
    return by in _BY_ADDRESS


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
