"""`python -m sixfold`, and the entry point of the `sixfold` command."""

import signal
import sys

from sixfold.cli import main as _main


def main() -> None:
    """Run the command line and leave with its exit code.

    A request to end (SIGTERM: of a batch system, a container, `timeout`) is taken as Ctrl-C is, so
    that a training saves where it is and temporary folders go.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(_main())


if __name__ == "__main__":
    main()
