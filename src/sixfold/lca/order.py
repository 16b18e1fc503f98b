"""Which image each element of the batch sees at each update.

    random   a permutation of all images each epoch, drawn from (seed, epoch)
    file     the images as they are listed, one after the other over the elements
    list     the listing cut into as many equal runs as the batch has elements; each element goes
             through its own run
    movie    each element goes through its own movies, some frames of each

The order is a function of the update's number, so the number (with the seed) is all that a
checkpoint needs: no generator has a state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sixfold.core.errors import UserError
from sixfold.data import permutation
from sixfold.lca.config import LearnConfig


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order.

    >>> Order(kind="list", images=6, batch=2, seed=0).at(1)
    [1, 4]
    >>> movies = ((0, 3), (3, 2), (5, 4))
    >>> order = Order(kind="movie", images=9, batch=2, seed=0, movies=movies, frames=2)
    >>> [order.at(step) for step in range(4)]
    [[0, 3], [1, 4], [5, 3], [6, 4]]
    >>> [order.follows(step, 0) for step in range(4)]
    [False, True, False, True]
    """

    kind: str  # `random`, `file`, `list` or `movie`
    images: int  # how many there are
    batch: int
    seed: int
    movies: Sequence[tuple[int, int]] = ()  # first frame and number of frames of each
    frames: int = 0  # of a movie before an element turns to the next; 0 for all

    def __post_init__(self) -> None:
        if self.kind == "movie":
            if not self.movies:
                raise UserError("--order movie: the data hold no movies; use --data movies:PATH")
            if len(self.movies) < self.batch:
                raise UserError(
                    f"--order movie: {len(self.movies)} movies for a batch of {self.batch}: each "
                    f"element needs its own; use --batch-size {len(self.movies)} or less"
                )
        elif self.kind == "list" and self.images < self.batch:
            raise UserError(
                f"--order list: {self.images} images cannot be cut into {self.batch} runs; use a "
                "smaller --batch-size"
            )

    @property
    def epoch_steps(self) -> float:
        """Updates in which every image is seen once (with `frames`, about once)."""
        return self.images / self.batch

    def at(self, step: int) -> list[int]:
        """The image of each element at an update, from 0."""
        if self.kind == "movie":
            return [self._frame(step, element)[0] for element in range(self.batch)]
        if self.kind == "list":
            run = self.images // self.batch
            return [element * run + step % run for element in range(self.batch)]
        places = range(step * self.batch, (step + 1) * self.batch)
        if self.kind == "file":
            return [place % self.images for place in places]
        epochs = {place // self.images for place in places}
        orders = {epoch: permutation(self.seed, epoch, self.images) for epoch in epochs}
        return [int(orders[place // self.images][place % self.images]) for place in places]

    def follows(self, step: int, element: int) -> bool:
        """Whether an element's image is the frame after the one that it saw before."""
        return self.kind == "movie" and self._frame(step, element)[1] > 0

    def _frame(self, step: int, element: int) -> tuple[int, int]:
        """The frame that an element sees, among all frames and within its movie."""
        own = [movie for place, movie in enumerate(self.movies) if place % self.batch == element]
        shown = [min(self.frames, length) if self.frames else length for _, length in own]
        ends = np.cumsum(shown)
        at = step % int(ends[-1])
        which = int(np.searchsorted(ends, at, side="right"))
        within = at - int(ends[which] - shown[which])
        return own[which][0] + within, within


def order_of(learn: LearnConfig, images: int, movies: Sequence[tuple[int, int]]) -> Order:
    """The order that the settings ask for."""
    return Order(
        kind=learn.order,
        images=images,
        batch=learn.batch_size,
        seed=learn.seed,
        movies=movies,
        frames=learn.frames,
    )
