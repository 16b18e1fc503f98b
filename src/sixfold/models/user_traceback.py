"""Where in the user's own code an exception was raised, in one line."""

from pathlib import Path

from sixfold.core.installed import is_installed


def one_line(error: BaseException) -> str:
    r"""An exception in one line: type, first line of its text, and where it was raised.

    The place is the innermost frame that is neither Sixfold's nor an installed package's.
    """
    text = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    if isinstance(error, SyntaxError):  # its text has the place
        return line
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_file() and not is_installed(file):
            place = f" ({file.name} line {trace.tb_lineno})"
        trace = trace.tb_next
    return line + place
