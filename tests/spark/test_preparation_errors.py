"""What executors could not do is told in one line."""

import pytest

from sixfold.core.errors import RunError
from sixfold.spark.preparation import _in_one_line, cause

TOLD = """An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "worker.py", line 1920, in read_udfs
    import pyarrow as pa
{said}

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:581)
java.lang.RuntimeException: gone
"""


def test_the_line_of_the_traceback_that_says_why() -> None:
    said = cause(TOLD.format(said="PIL.UnidentifiedImageError: cannot identify image file"))
    assert said == "PIL.UnidentifiedImageError: cannot identify image file"


def test_a_missing_module_is_told_with_what_to_set() -> None:
    said = cause(TOLD.format(said="ModuleNotFoundError: No module named 'pyarrow'"))
    assert said.startswith("ModuleNotFoundError: No module named 'pyarrow' on an executor: set ")
    assert "PYSPARK_PYTHON" in said


def test_without_a_traceback_the_first_line() -> None:
    assert cause("Job aborted.\njava.lang.RuntimeException: gone") == "Job aborted."


def test_a_job_that_somebody_cancelled_is_no_traceback() -> None:
    errors = pytest.importorskip("pyspark.errors")
    with (
        pytest.raises(RunError, match=r"^Spark could not prepare the rows: its job was cancelled$"),
        _in_one_line(),
    ):
        raise errors.PySparkException("[SPARK_JOB_CANCELLED] Job 0 cancelled")
    with pytest.raises(ZeroDivisionError), _in_one_line():
        raise ZeroDivisionError
