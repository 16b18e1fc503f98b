"""Sizes in bytes that Spark's settings give."""

from typing import Any

from sixfold.core.byte_sizes import parse_size
from sixfold.core.errors import UserError


def result_limit_bytes(session: Any) -> int:
    """What tasks of a job may return to the driver, 0 for no limit; a `UserError` if no size."""
    text = session.setting("spark.driver.maxResultSize", "1g")
    try:
        return parse_size(text)
    except ValueError:
        raise UserError(f"spark.driver.maxResultSize={text}: expected a size such as 1g") from None
