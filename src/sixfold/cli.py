"""The command line: one subcommand a file, errors by exit code, imports only as needed."""

import logging
import sys
import traceback
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sixfold.core.console.options import Parser
from sixfold.core.errors import SixfoldError, UserError, printable
from sixfold.core.naming import unknown_option
from sixfold.core.version import __version__


class Command(NamedTuple):
    """A subcommand: ``package.command`` has ``options(parser)`` and ``run(arguments, problems)``.

    Attributes:
        package: the feature's folder.
        help: one line.
    """

    package: str
    help: str


COMMANDS = {
    "train": Command("sixfold.training", "train a network in parallel"),
    "lr-find": Command(
        "sixfold.training.lr_find", "try learning rates on one short training, and suggest one"
    ),
    "predict": Command("sixfold.prediction", "classify a data set with a trained network"),
    "evaluate": Command(
        "sixfold.prediction.robustness",
        "tell how a network's accuracy stands up to distorted images",
    ),
    "compress": Command(
        "sixfold.compression", "prune, share and code the weights of a trained network"
    ),
    "export": Command(
        "sixfold.prediction.export", "write a trained network as ONNX, TorchScript or for torch"
    ),
    "lca": Command(
        "sixfold.lca",
        "learn dictionaries and sparse codes of images (locally competitive algorithm)",
    ),
    "prepare": Command("sixfold.data", "turn images into tensor shards that load fast"),
    "sparse": Command(
        "sixfold.prediction.sparse",
        "choose, by measuring, which layers of a pruned network run sparse",
    ),
    "tickets": Command(
        "sixfold.lottery",
        "search for lottery tickets: sparse networks that train as well as the dense one",
    ),
    "plan": Command(
        "sixfold.perf.plan",
        "predict the time of every way to divide a training, here and on larger clusters",
    ),
    "sweep": Command(
        "sixfold.studies.sweep",
        "run a grid of settings, timed or for what they reach, and fit laws to it",
    ),
    "tune": Command(
        "sixfold.studies.tune",
        "search over settings of training, each trial only as far as it is promising",
    ),
    "profile": Command(
        "sixfold.perf.profile",
        "measure where the time of a training goes, by layer, operator and rank",
    ),
    "doctor": Command(
        "sixfold.spark.doctor",
        "look at this host or a Spark cluster: is all there that a run needs?",
    ),
    "report": Command("sixfold.studies.report", "write a run's report again"),
    "strategies": Command("sixfold.training.strategies", "list the ways to divide the work"),
    "models": Command("sixfold.models", "list the networks of the zoo"),
    "lab": Command(
        "sixfold.studies.lab",
        "divide a convolution, a product, a training on Spark in other ways, and measure each",
    ),
    "completion": Command(
        "sixfold.core.completion", "write the script that makes bash or zsh complete all this"
    ),
}

INTERRUPTED = 130

OUT_OF_MEMORY = (
    "there is not enough memory: close other programs, raise the limit (`ulimit -v`, or that of "
    "threads, `ulimit -u`), or take fewer --workers or a smaller --batch-size (--debug shows where)"
)
_MEMORY_SIGNS = (
    "error return without exception set",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment from shared object",
    "std::bad_alloc",
    "can't start new thread",
)


def main(arguments: Sequence[str] | None = None, commands: Mapping[str, Command] = COMMANDS) -> int:
    """Run a command: exit code 0, 2 for wrong input, 1 for a failed run, 130 after Ctrl-C.

    `arguments` are the words behind ``sixfold``; those of the process if absent.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        with _without_tracebacks_of_py4j():
            return _dispatch([word for word in words if word != "--debug"], commands)
    except (SixfoldError, MemoryError, SystemError) as error:
        if debug:
            traceback.print_exc()
        if out_of_memory(error):
            print(f"sixfold: {OUT_OF_MEMORY}", file=sys.stderr)
            return 1
        if not isinstance(error, SixfoldError):
            return _own_fault(error)
        problems = error.problems if isinstance(error, UserError) else (str(error),)
        for problem in problems:
            text = "\n".join(map(printable, problem.split("\n")))
            print(f"sixfold: {text}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stopped:
        print(f"sixfold: stopped{stopped}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`sixfold ... | head`): nothing is wrong.
        sys.stderr.close()
        return 0
    except OSError as error:
        # The operating system's refusals at places where nobody expects one.
        if debug:
            traceback.print_exc()
        if _was_interrupted(error):
            return INTERRUPTED
        print(f"sixfold: {error} (--debug shows where)", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        if _was_interrupted(error):
            return INTERRUPTED
        if out_of_memory(error):  # a library that could not be mapped, say
            print(f"sixfold: {OUT_OF_MEMORY}", file=sys.stderr)
            return 1
        return _own_fault(error)


def _was_interrupted(error: Exception) -> bool:
    """Whether an error is that of a clean-up which a Ctrl-C began; then say so."""
    found = any(isinstance(one, KeyboardInterrupt) for one in _chain(error))
    if found:
        print("sixfold: stopped", file=sys.stderr)
    return found


def _own_fault(error: Exception) -> int:
    """One line for an error that nobody expected, which is a fault of Sixfold."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = printable(f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})")
    print(f"sixfold: a fault of Sixfold's own: {text}; --debug shows more", file=sys.stderr)
    return 1


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error comes, however indirectly, from memory that could not be had.

    Extension modules that do not look whether an allocation failed say so in their own ways.
    """
    return any(isinstance(one, MemoryError) or _tells_of_memory(str(one)) for one in _chain(error))


def _tells_of_memory(text: str) -> bool:
    """Whether a message, or the log of a process that ended, says so."""
    if any(sign in text.casefold() for sign in _MEMORY_SIGNS):
        return True
    return any(line.strip().startswith("MemoryError") for line in text.splitlines())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those from which it came."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _dispatch(words: list[str], commands: Mapping[str, Command]) -> int:
    parser = _parser()
    if not words or words[0] in ("-h", "--help"):
        parser.print_help()
        return 0
    if words[0] == "--version":
        print(f"sixfold {__version__}")
        return 0
    name = words[0]
    if name not in commands:
        from sixfold.core.checks import unknown

        raise UserError(unknown("command", name, commands))
    import importlib

    package, description = commands[name]
    command = importlib.import_module(f"{package}.command")
    subparser = Parser(prog=f"sixfold {name}", description=description, allow_abbrev=False)
    command.options(subparser)
    subparser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    run: Callable[..., int] = command.run
    parsed, extra = subparser.parse_known_args(words[1:])
    known = subparser.flags(parsed)
    try:
        return run(parsed, [unknown_option(w, known, subparser.prog) for w in _joined(extra)])
    except KeyboardInterrupt:
        resumable = "--resume" in known
        told = "; go on with --resume where a run was going" if resumable else ""
        raise KeyboardInterrupt(told) from None


@contextmanager
def _without_tracebacks_of_py4j() -> Iterator[None]:
    """Keep py4j from printing tracebacks of a Ctrl-C, or of a JVM that a signal has ended first."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("KeyboardInterrupt while sending command")

    root, py4j, nowhere = logging.getLogger(), logging.getLogger("py4j"), logging.NullHandler()
    root.addFilter(keep)
    py4j.addHandler(nowhere)
    propagated, py4j.propagate = py4j.propagate, False
    try:
        yield
    finally:
        root.removeFilter(keep)
        py4j.removeHandler(nowhere)
        py4j.propagate = propagated


def _joined(words: list[str]) -> list[str]:
    """Unknown options with the values behind them, which are no problems of their own."""
    found: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_value = before.startswith("-") and "=" not in before and not word.startswith("-")
        if is_value:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _parser() -> Parser:
    lines = "\n".join(f"  {name:<11} {what}" for name, (_, what) in COMMANDS.items())
    return Parser(
        prog="sixfold",
        usage="sixfold COMMAND [options]",
        formatter_class=RawDescriptionHelpFormatter,
        description=(
            "Train convolutional networks in parallel, on one machine or on Apache Spark, with "
            "the\nsame bits as serial training.\n\ncommands:\n"
            + lines
            + "\n\n`sixfold COMMAND --help` lists a command's options. Other programs' names of "
            "them\nare understood: --learning-rate for --lr, --num-epochs, --output-dir, ..."
        ),
    )
