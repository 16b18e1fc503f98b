"""Networks: a zoo, the user's own, and whether they fit the data."""

from sixfold.models.build import build
from sixfold.models.check import check
from sixfold.models.importing import source_file
from sixfold.models.origin import check_origin
from sixfold.models.zoo import names

__all__ = ["build", "check", "check_origin", "names", "source_file"]
