"""Networks: a zoo, the user's own, and whether they fit the data."""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.models.building import build as build
    from sixfold.models.checking import check as check
    from sixfold.models.importing import source_file as source_file
    from sixfold.models.origin import check_origin as check_origin
    from sixfold.models.zoo import names as names


__getattr__ = lazy(
    __name__,
    {
        "building": ("build",),
        "checking": ("check",),
        "importing": ("source_file",),
        "origin": ("check_origin",),
        "zoo": ("names",),
    },
)
