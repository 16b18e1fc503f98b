"""The version of this package, and of what figures depend on."""

import os
import platform

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    from importlib import metadata

    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("sixfold", "torch", "numpy", "pyarrow", "pyspark"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"cores": str(os.cpu_count())}
