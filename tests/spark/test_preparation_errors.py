"""What executors could not do is told in one line."""

from sixfold.spark.preparation import cause

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
