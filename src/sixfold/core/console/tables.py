"""Tables as aligned text."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], texts: Collection[int] = (0,)) -> list[str]:
    """Rows as lines: the columns `texts` to the left, the others, which are figures, to the right.

    The last cell of a row that is shorter than others takes all the place that is left.

    >>> aligned([["a", "1", "2"], ["bc", "23", "4"], ["d", "could not be run"]])
    ['a    1  2', 'bc  23  4', 'd   could not be run']
    """
    count = max(map(len, rows), default=0)
    full = [row if len(row) == count else row[:-1] for row in rows]
    widths = [max((len(row[k]) for row in full if k < len(row)), default=0) for k in range(count)]
    lines = []
    for row, placed in zip(rows, full, strict=True):
        cells = [
            cell.ljust(widths[k]) if k in texts else cell.rjust(widths[k])
            for k, cell in enumerate(placed)
        ]
        lines.append("  ".join([*cells, *row[len(placed) :]]).rstrip())
    return lines
