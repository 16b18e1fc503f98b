"""What interval of its input an interval of a layer's output needs, along one dim.

A layer with kernel k, stride s, dilation d and p cells of padding in front computes output o from
the inputs o s - p, o s - p + d, ..., o s - p + (k - 1) d. So outputs [o0, o1) need

    [ o0 s - p,  (o1 - 1) s - p + (k - 1) d + 1 )

of which the part within the input is fetched, from whoever owns it, and the rest is padding. This
is exact for every k, s, p, d, for intervals of any length, and for outputs that lie wholly in the
padding, since the output is divided and the input follows.
"""

from dataclasses import dataclass

from sixfold.training.strategies.model_parallel.layout import Interval


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a layer looks at one dim of its input.

    Attributes:
        length: of the input.
        kernel: k.
        stride: s.
        before: p, cells of padding in front; negative if cells are left out.
        dilation: d.
    """

    length: int
    kernel: int = 1
    stride: int = 1
    before: int = 0
    dilation: int = 1

    def need(self, out: Interval) -> tuple[Interval, Interval]:
        """What outputs [o0, o1) need.

        Returns:
            The interval of the input, and the cells of padding in front of it and behind it.

        >>> Window(length=8, kernel=3, before=1).need((0, 4))
        ((0, 5), (1, 0))
        """
        if out[1] <= out[0]:
            return (0, 0), (0, 0)
        low = out[0] * self.stride - self.before
        high = (out[1] - 1) * self.stride - self.before + (self.kernel - 1) * self.dilation + 1
        start = min(max(0, low), high)
        stop = max(min(self.length, high), low)
        if stop <= start:  # nothing but padding
            return (0, 0), (high - low, 0)
        return (start, stop), (start - low, high - stop)
