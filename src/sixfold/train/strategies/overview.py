"""All strategies at a glance: what each promises, what it sends, and when to use it.

`sixfold strategies` prints this; `docs/strategies.md` says the same at length.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One strategy.

    Attributes:
        what: how it divides the work, one line.
        guarantee: how its result relates to serial training.
        sends: bytes that each rank sends per step.
        use: when to choose it.
        lost_rank: what happens when a rank dies.
    """

    what: str
    guarantee: str
    sends: str
    use: str
    lost_rank: str


LEGEND = (
    "Bytes are those that one rank sends. P: size of all weights and float buffers; n: ranks; "
    "docs/strategies.md has a page on each."
)

STRATEGIES: dict[str, Overview] = {
    "sync": Overview(
        what="data parallel: the batch is divided, and gradients are added at every step",
        guarantee="equal to serial training bit for bit, for any number of workers",
        sends="2 P (n-1)/n for n a power of two; others send up to 2 log2 L partial sums, not one",
        use="by default: whenever a batch is worth dividing and ranks are well connected",
        lost_rank="all ranks start again from the last checkpoint; nothing is lost but time",
    ),
    "local_sgd": Overview(
        what="workers train apart on images of their own, and merge their weights every H steps",
        guarantee="approximate: the result depends on the number of workers, and on nothing else",
        sends="2 P (1+s) (n-1)/n / H, s state vectors of the optimizer (1 with momentum)",
        use="slow networks, since it sends H times less; or to study how networks can be merged",
        lost_rank="all ranks start again from the last merge that was saved; only time is lost",
    ),
    "hogwild": Overview(
        what="workers of one machine update shared weights without locks, each on its own batches",
        guarantee="approximate: gradients are some updates old, and a few updates may be lost",
        sends="nothing within a machine; at a merge of m groups 2 (P + optimizer state) (m-1)/m",
        use="many cores of one machine and batches too small to be divided",
        lost_rank="all ranks start again from the last checkpoint",
    ),
    "param_server": Overview(
        what="asynchronous: workers pull weights from servers and push gradients, nobody waits",
        guarantee="bounded staleness; every step is applied exactly once; the bits vary",
        sends="P + G + 2 Q to and from the servers (G gradient, Q float buffers), for each batch",
        use="workers of unequal speed, or that come and go",
        lost_rank="the others go on; a worker loses a gradient, a server about a second of updates",
    ),
    "model_parallel": Overview(
        what="rows, columns and channels of the maps are divided, in any grid with the batch",
        guarantee="equal to serial training up to rounding (1e-10 in float64), the same every time",
        sends="rows, cols: 2 B C W h a layer with a halo of h rows, and 2 Pc (m-1)/m, Pc the size "
        "of convolutions, m = rows x cols; cout: 2 B C H W (cout-1)/cout a convolution behind the "
        "first; linear layers: B K (T-1) at the end of the network of T ranks, or 2 B K (T-1)/T",
        use="small batches of large images, and networks too large for one rank",
        lost_rank="all ranks start again from the last checkpoint; nothing is lost but time",
    ),
}
"""Name to overview, in the order of the page."""
