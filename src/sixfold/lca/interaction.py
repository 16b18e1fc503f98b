"""How atoms compete: a dictionary prepared for the form that computes its products fastest.

The form, residual or Gram, follows from the sizes (`Geometry.form`), not from a measurement.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sixfold.core.errors import UserError
from sixfold.lca.geometry import Geometry
from sixfold.lca.lane import DenseLane, GramLane, Lane, LocalLane, ResidualLane
from sixfold.lca.phases import Phases

if TYPE_CHECKING:
    from sixfold.lca.tiles import Tile

SHARING = ("batch", "element", "position")


class LateralInhibition:
    """A dictionary, ready to compute with; `form` is the one chosen of `auto`, `residual`, `gram`.

    Shapes by `sharing`: `batch` (K, C, R, S); `element` (n, K, C, R, S), one for each element of
    the batch; `position` (P Q, K, C, R, S).
    """

    def __init__(
        self, dictionary: Tensor, geometry: Geometry, *, sharing: str = "batch", form: str = "auto"
    ) -> None:
        check_dictionary(dictionary, geometry, sharing)
        if sharing != "batch" and form == "gram":
            raise UserError(f"form gram: needs one dictionary for all, not sharing {sharing}")
        if form == "gram" and not geometry.gram_is_exact:
            raise UserError(
                "form gram: with padding and a free boundary atoms at the edge are cut off and "
                "their products differ: use form residual, or boundary zero"
            )
        self.dictionary, self.geometry, self.sharing = dictionary, geometry, sharing
        chosen = geometry.form if form == "auto" else form
        self.form = chosen if sharing == "batch" else "residual"
        self.phases = Phases(geometry)
        self._sorted = sharing == "batch" and not geometry.dense
        if self._sorted:
            self._analysis = self.phases.analysis_kernels(dictionary)
            self._synthesis = self.phases.synthesis_kernels(dictionary)
            self._mask = self.phases.mask(dictionary.dtype)
        self._gram: Tensor | None = None
        if self.form == "gram":
            flat = dictionary.flatten(1)
            self._gram = flat @ flat.t() if geometry.dense else self.phases.gram_kernels(dictionary)

    def lane(self, width: int, tile: Tile | None = None, *, residual: bool = False) -> Lane:
        """A lane of so many empty slots, for all positions or for those of a tile.

        `residual` takes the residual form whatever was chosen.
        """
        geometry, dictionary, phases = self.geometry, self.dictionary, self.phases
        gram = None if residual or tile is not None else self._gram
        if self.sharing != "batch":
            own = dictionary if self.sharing == "position" else None
            return LocalLane(width, geometry=geometry, per_position=own, dtype=dictionary.dtype)
        if geometry.dense:
            return DenseLane(width, dictionary=dictionary.flatten(1), gram=gram)
        if gram is not None:
            return GramLane(
                width,
                analysis=self._analysis,
                gram=gram,
                positions=geometry.positions,
                skip=phases.skip,
            )
        make = partial(ResidualLane, width, analysis=self._analysis, synthesis=self._synthesis)
        if tile is None:
            return make(
                grid=phases.grid,
                positions=geometry.positions,
                halo=phases.halo,
                skip=phases.skip,
                mask=self._mask,
            )
        return make(
            grid=tile.grid,
            positions=tile.positions,
            halo=tile.halo,
            skip=(0, 0),
            mask=tile.mask(self._mask, phases.channels, dictionary.dtype),
            owned=tile.owned(),
        )

    def prepare(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) in the form in which lanes take them."""
        images = images.to(self.dictionary.dtype)
        return self.phases.sort(images) if self._sorted else images

    def residual(self, images: Tensor, codes: Tensor) -> Tensor:
        """X - D a (n, C, H, W) of codes (n, K, P, Q), one element after the other.

        Pixels that no atom reaches are zero. What lies beyond the image is left out, with boundary
        `zero` too.
        """
        found = torch.zeros_like(images, dtype=self.dictionary.dtype)
        prepared = self.prepare(images)
        lane = self.lane(1, residual=True)
        for index in range(len(images)):
            lane.load(0, prepared[index])
            if isinstance(lane, LocalLane) and self.sharing == "element":
                lane.load_dictionary(0, self.dictionary[index])
            lane.code[0] = codes[index]
            found[index] = self._own_pixels(lane)
        return found

    def _own_pixels(self, lane: Lane) -> Tensor:
        """The residual in a lane of one slot, (C, H, W)."""
        lane.gradient()
        if isinstance(lane, ResidualLane):
            return self.phases.unsort(lane.residual)[0]
        if isinstance(lane, LocalLane):
            return lane.own_pixels()[0]
        assert isinstance(lane, DenseLane), "a Gram lane knows no residual"
        return lane.residual.view(self.geometry.image)


def check_dictionary(dictionary: Tensor, geometry: Geometry, sharing: str) -> None:
    """Refuse a dictionary of another shape than geometry and sharing ask for, or of NaN."""
    shape = (geometry.atoms, *geometry.atom_shape)
    if sharing not in SHARING:
        raise UserError(f"sharing {sharing!r}: choose {', '.join(SHARING)}")
    found = tuple(dictionary.shape)
    p, q = geometry.positions
    fits = {
        "batch": found == shape,
        "element": found[1:] == shape,
        "position": found == (p * q, *shape),
    }[sharing]
    if not fits:
        leading = {"batch": (), "element": ("elements",), "position": (p * q,)}[sharing]
        raise UserError(f"the dictionary has shape {found}, expected {(*leading, *shape)}")
    if odd := int((~torch.isfinite(dictionary)).sum()):
        raise UserError(
            f"{odd} of {dictionary.numel()} numbers of the dictionary are NaN or infinite: "
            "learn it anew, with a lower learning rate"
        )
