"""`python -m sixfold`, and the entry point of the `sixfold` command."""

import os
import signal
import sys


def main() -> None:
    """Run the command line and leave with its exit code.

    A request to end (SIGTERM: of a batch system, a container, `timeout`) is taken as Ctrl-C is, so
    that a training saves where it is and temporary folders go.
    """
    if sys.platform == "win32":
        sys.stderr.write("sixfold: Windows is not supported: use WSL 2 or a Linux container\n")
        sys.exit(2)
    from sixfold.cli import main as command_line
    from sixfold.core.environment import HASH_SEED

    # Ranks of this engine are threads of this process, whose seed only its start can set.
    chosen = [*sys.argv, os.environ.get("SIXFOLD_ENGINE", "")]
    if any("inline" in word for word in chosen) and "PYTHONHASHSEED" not in os.environ:
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, **HASH_SEED})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(command_line())


if __name__ == "__main__":
    main()
