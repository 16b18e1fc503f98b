from __future__ import annotations

import subprocess
import sys

import pytest

from sixfold.core.errors import UserError
from sixfold.distributed.engines import NAMES, open_engine
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.engines.local import LocalEngine


def test_engines_have_names() -> None:
    inline = open_engine("inline")
    assert isinstance(inline, InlineEngine)
    assert inline.slots() >= 1
    inline.close()
    local = open_engine("local", preload=())
    assert isinstance(local, LocalEngine)
    assert (local.name, inline.name) == ("local", "inline")
    local.close()
    assert set(NAMES) == {"inline", "local", "spark"}


def test_an_unknown_name_is_answered_with_the_choices() -> None:
    with pytest.raises(UserError, match="unknown engine 'ray': choose inline, local or spark"):
        open_engine("ray")


def test_spark_without_pyspark_is_answered_with_the_remedy() -> None:
    code = (
        "import sys\n"
        "sys.modules['pyspark'] = None\n"
        "from sixfold.distributed.engines import open_engine\n"
        "from sixfold.core.errors import UserError\n"
        "try:\n"
        "    open_engine('spark', master='local[1]').close()\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "needs pyspark: pip install 'sixfold[spark]'" in done.stdout


def test_neither_torch_nor_pyspark_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "from sixfold.distributed.engines import inline, local\n"
        "print(sorted({'torch', 'pyspark'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
