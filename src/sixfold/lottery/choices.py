"""Reading the settings of a trellis: lists of sparsities, rewind points, rates and controls."""

import math

from sixfold.core.errors import UserError, problems_of
from sixfold.lottery.config import TicketsConfig
from sixfold.training.sparsity.counts import DEFAULT_RATE, KINDS
from sixfold.training.step.schedule import TrainingLength

CONTROLS = ("reinit", "random")
FEWEST_POINTS = 11  # on a line between two networks: the source's 30 show no more than 11 do


def parse_thresholds(text: str) -> int | list[float]:
    """A number of quantiles, or sparsities in rising order; a `UserError` if it is neither.

    >>> parse_thresholds("20"), parse_thresholds("0.9, 50%")
    (20, [0.5, 0.9])
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = UserError(
        f"--sparsities {text!r}: expected a number of quantiles, such as 4, or sparsities between "
        "0 and 1, such as 0.5,0.8 or 50%,80%"
    )
    if len(words) == 1 and words[0].isdecimal():
        if int(words[0]) < 1:
            raise wrong
        return int(words[0])
    try:
        found = [float(w.removesuffix("%")) / (100 if w.endswith("%") else 1) for w in words]
    except ValueError:
        raise wrong from None
    if not found or not all(0 < sparsity < 1 for sparsity in found):
        raise wrong
    return sorted(set(found))


def quantiles(count: int) -> list[float]:
    """So many cuts into equal parts.

    >>> quantiles(4)
    [0.2, 0.4, 0.6, 0.8]
    """
    return [cut / (count + 1) for cut in range(1, count + 1)]


def parse_rewinds(text: str, budget: TrainingLength | None = None) -> list[int]:
    """The steps of `--rewinds` in rising order; without a budget the text is only checked.

    A `UserError` if a word is none, or lies behind the end of the dense run.

    >>> parse_rewinds("1ep,0", TrainingLength(images=100, batch_size=10, total_steps=30))
    [0, 10]
    """
    found = set()
    for word in [word.strip() for word in text.split(",")]:
        try:
            if word.endswith("ep"):
                epochs = float(word.removesuffix("ep"))
                per_epoch = budget.steps_per_epoch if budget else 1
                step = round(epochs * per_epoch) if 0 <= epochs < math.inf else -1
            else:
                step = int(word)
        except ValueError:
            step = -1
        if step < 0:
            raise UserError(
                f"--rewinds {text!r}: {word!r} is neither a step, such as 500, nor epochs, such as "
                "2ep"
            )
        if budget is not None and step >= budget.total_steps:
            raise UserError(
                f"--rewinds {word}: step {step} does not lie before the end of the dense run, "
                f"which has {budget.total_steps} steps"
            )
        found.add(step)
    return sorted(found)


def parse_rates(text: str) -> dict[str, float] | None:
    """Rates for every kind of layer, None if all are alike; a `UserError` if one is amiss.

    >>> parse_rates("output=0.1")
    {'conv': 0.2, 'fc': 0.2, 'output': 0.1}
    """
    if not text.strip():
        return None
    rates = dict.fromkeys(KINDS, DEFAULT_RATE)
    for word in text.split(","):
        kind, _, value = word.strip().partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        if kind not in KINDS or not 0 <= rate < 1:
            raise UserError(
                f"--rates {word.strip()!r}: expected a kind of layer ({', '.join(KINDS)}) and a "
                "part of at least 0 and below 1, such as fc=0.2"
            )
        rates[kind] = rate
    return rates


def parse_controls(text: str) -> list[str]:
    """The controls asked for; a `UserError` if one is unknown."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    for word in found:
        if word not in CONTROLS:
            raise UserError(f"--controls {word!r}: choose {' or '.join(CONTROLS)}, or both")
    return [control for control in CONTROLS if control in found]


def trellis_problems(config: TicketsConfig) -> list[str]:
    """Everything that is wrong with the settings that only `sixfold tickets` has."""
    trellis = config.trellis
    found = problems_of(
        lambda: parse_thresholds(trellis.sparsities),
        lambda: parse_rewinds(trellis.rewinds),
        lambda: parse_rates(trellis.rates),
        lambda: parse_controls(trellis.controls),
    )
    if 0 < trellis.instability < FEWEST_POINTS:
        found.append(
            f"--instability {trellis.instability}: needs at least {FEWEST_POINTS} points, or 0"
        )
    if not config.data.validation > 0:
        found.append(
            "--validation 0: tickets are judged and chosen on the validation part, since nothing "
            "may be chosen on the test set; give 0.1, say"
        )
    return found
