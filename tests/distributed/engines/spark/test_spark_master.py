from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.distributed.engines.spark_master import (
    check_java,
    parse_master,
    parse_settings,
    submitted_master,
)

WriteJava = Callable[[str], Path]


@pytest.mark.parametrize(
    ("url", "kind", "slots"),
    [
        ("local", "local", 1),
        ("local[4]", "local", 4),
        ("local[ 4, 2 ]", "local", 4),
        ("local-cluster[2,3,1024]", "local-cluster", 6),
        ("spark://host:7077", "standalone", None),
        ("yarn", "other", None),
        ("k8s://https://host:6443", "other", None),
    ],
)
def test_masters_are_told_apart(url: str, kind: str, slots: int | None) -> None:
    master = parse_master(url)
    assert (master.kind, master.slots) == (kind, slots)


def test_all_cores_are_those_this_process_may_use() -> None:
    assert parse_master("local[*]").slots == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "loca[2]",
        "local[0]",
        "local[-1]",
        "local[2",
        "local[2]x",
        "local-cluster[2,1]",
        "local-cluster[0,1,1024]",
        "local-cluster[1,1,0]",
        "spark://",
        "spark://host",
        "spark://host:port",
        "spark://host:0",
        "spark://host:70777",
        "spark://a:1,b",
        "http://host:8080",
    ],
)
def test_a_malformed_master_is_told_in_one_line(url: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_master(url)
    assert len(str(caught.value).splitlines()) == 1
    assert repr(url) in str(caught.value)


def test_every_malformed_setting_is_named() -> None:
    with pytest.raises(UserError) as caught:
        parse_settings(["spark.a=1", "b", "c=2", "spark.=3"])
    assert [problem.split("'")[1] for problem in caught.value.problems] == ["b", "c=2", "spark.=3"]


@pytest.mark.parametrize(
    "words", ["--master local[7] x", "--master=local[7]", "-x 'a b' --master local[7]"]
)
def test_the_master_of_spark_submit_is_found(words: str, tmp_path: Path) -> None:
    assert submitted_master({"PYSPARK_SUBMIT_ARGS": words}, tmp_path) == "local[7]"


def test_the_master_of_sparks_defaults_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text(
        "# spark.master  local[1]\nspark.master    spark://somewhere:7077\n"
    )
    assert submitted_master({}, tmp_path) == "spark://somewhere:7077"


def test_without_any_master_there_is_none(tmp_path: Path) -> None:
    assert submitted_master({"PYSPARK_SUBMIT_ARGS": "pyspark-shell"}, tmp_path) is None


@pytest.fixture
def write_java(tmp_path: Path) -> WriteJava:
    """Writes a `java` that prints something; its home."""

    def write(output: str) -> Path:
        java = tmp_path / "bin" / "java"
        java.parent.mkdir()
        java.write_text(f"#!/bin/sh\necho '{output}' >&2\n")
        java.chmod(0o755)
        return tmp_path

    return write


def test_no_java_is_told_with_the_remedy(tmp_path: Path) -> None:
    (problem,) = check_java({"PATH": str(tmp_path)})
    assert "JAVA_HOME" in problem
    assert "none on PATH" in problem
    assert len(problem.splitlines()) == 1


def test_a_wrong_java_home_is_told(tmp_path: Path) -> None:
    (problem,) = check_java({"PATH": os.environ["PATH"], "JAVA_HOME": str(tmp_path)})
    assert str(tmp_path) in problem


def test_an_old_java_is_told(write_java: WriteJava) -> None:
    home = write_java('openjdk version "11.0.21" 2023-10-17')
    (problem,) = check_java({"JAVA_HOME": str(home)})
    assert "is 11" in problem


def test_something_else_named_java_is_told(write_java: WriteJava) -> None:
    (problem,) = check_java({"JAVA_HOME": str(write_java("hello"))})
    assert "does not tell a version" in problem


def test_a_new_java_is_accepted(write_java: WriteJava) -> None:
    assert check_java({"JAVA_HOME": str(write_java('openjdk version "21" 2023-09-19'))}) == []
