"""Writing Params and weights as Spark ML does, in a classic session and over Connect."""

from typing import Any

from pyspark.ml.util import DefaultParamsWriter, MLWriter

from sixfold.core.errors import UserError
from sixfold.spark.session import is_connect


class Writer(MLWriter):
    """An MLWriter that can also overwrite where the session has no JVM."""

    def _handleOverwrite(self, path: str) -> None:  # noqa: N802 - Spark's name
        if not is_connect(self.sparkSession):
            super()._handleOverwrite(path)
            return
        import fsspec

        files, place = fsspec.core.url_to_fs(local_path(path))
        if not files.exists(place):
            return
        if not files.exists(f"{place}/metadata"):
            raise UserError(f"{path} holds no saved Estimator or Model: it is not overwritten")
        files.rm(place, recursive=True)


class ParamsWriter(Writer, DefaultParamsWriter):
    """Writes what consists of Params alone."""

    def __init__(self, instance: Any) -> None:
        super().__init__(instance)

    def saveImpl(self, path: str) -> None:  # noqa: N802 - Spark's name
        """Write the Params, the user's own objects by their names."""
        from sixfold.models.objects import describe
        from sixfold.models.packed import is_packed
        from sixfold.spark.params import is_own

        def name(param: str, value: Any) -> Any:
            if isinstance(value, list):
                return [name(param, each) for each in value]
            if not is_own(value):
                return value
            found, _ = describe(value, param)
            if is_packed(found):
                raise UserError(
                    f"{param}: an object of a notebook or script cannot be saved with the "
                    "estimator: give package.module:name"
                )
            return found

        given = {param.name: value for param, value in self.instance._paramMap.items()}
        named = {param: name(param, value) for param, value in given.items()}
        self.saveMetadata(self.instance, path, self.sparkSession, paramMap=named)


def local_path(path: str) -> str:
    """A path as fsspec takes it."""
    return path.removeprefix("file://").rstrip("/")
