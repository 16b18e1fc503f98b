"""A machine's limits as plain data, and the file that keeps them; knows no torch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_json
from sixfold.perf.profile.cost import shared_rate

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Cache:
    """One cache that the first core uses."""

    level: int  # 1, 2 or 3
    kind: str  # "Data", "Instruction" or "Unified"
    size_bytes: int  # of it
    shared_by: int  # processors that share it


@dataclass(frozen=True, kw_only=True)
class ProductRate:
    """How fast matrices are multiplied, a multiply-add counted as 2 operations."""

    precision: str  # of the values, such as "float32"
    one_core_flops: float  # operations a second of one core while the others rest
    all_cores_flops: float  # operations a second of all cores together


@dataclass(frozen=True, kw_only=True)
class CopyRate:
    """How fast memory is copied, bytes read and bytes written both counted."""

    array_bytes: int  # size of the source, and of the destination
    one_core_bytes: float  # bytes a second of one core while the others rest
    all_cores_bytes: float  # bytes a second of all cores together, each with arrays of its own


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine's measured limits."""

    processor: str  # its name
    cores: int  # that this process may use
    memory_bytes: int  # of the machine; 0 if unknown
    caches: tuple[Cache, ...]  # of the first core, nearest first; empty if unknown
    products: tuple[ProductRate, ...]  # one entry a precision
    copies: tuple[CopyRate, ...]  # one entry a size, in rising order
    torch: str  # version that computed
    measured_at: float  # Unix seconds

    def peak_flops(self, busy: int = 1, precision: str = "float32") -> float:
        """Operations a second of one core while so many are busy."""
        rate = next(rate for rate in self.products if rate.precision == precision)
        return shared_rate(rate.one_core_flops, rate.all_cores_flops, self.cores, busy)

    def bandwidth(self, busy: int = 1, array_bytes: int | None = None) -> float:
        """Bytes a second that one core reads and writes while so many are busy.

        `array_bytes` is the size of the arrays; the largest measured if absent.
        """
        wanted = self.copies[-1].array_bytes if array_bytes is None else array_bytes
        rate = next((r for r in self.copies if r.array_bytes >= wanted), self.copies[-1])
        return shared_rate(rate.one_core_bytes, rate.all_cores_bytes, self.cores, busy)


def save_machine(machine: Machine, path: Path) -> None:
    """Write a machine's limits as JSON, the file whole or not at all."""
    write_json(path, {"version": _VERSION, **dataclasses.asdict(machine)})


def load_machine(path: Path) -> Machine:
    """Read what `save_machine` wrote; anything else is refused."""
    from pydantic import TypeAdapter

    try:
        plain = parse_json(path.read_text(encoding="utf-8"))
        if (version := plain.pop("version")) != _VERSION:
            raise UserError(f"{path}: version {version}, expected {_VERSION}")
        machine = TypeAdapter(Machine).validate_python(plain)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: is no file of a machine's limits ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); `sixfold profile --machine-peaks FILE` makes one"
        ) from error
    rates = [v for r in machine.products for v in (r.one_core_flops, r.all_cores_flops)]
    rates += [v for r in machine.copies for v in (r.one_core_bytes, r.all_cores_bytes)]
    if not (machine.products and machine.copies and min(rates) > 0 and machine.cores > 0):
        raise UserError(f"{path}: rates and cores must be above 0")
    return machine
