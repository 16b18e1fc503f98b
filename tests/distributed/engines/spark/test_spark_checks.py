"""What is refused before a JVM is started."""

import time

import pytest

pytest.importorskip("pyspark")

from sixfold.core.errors import UserError
from sixfold.distributed.engines import open_engine, spark_checks
from sixfold.distributed.engines.spark_checks import check, setting_problems, task_slots
from sixfold.distributed.engines.spark_master import parse_master


@pytest.mark.parametrize(
    ("master", "conf", "slots"),
    [
        ("local[5]", {"spark.task.cpus": "2"}, 2),
        ("local", {"spark.task.cpus": "2"}, 0),
        ("local-cluster[2,1,1024]", {}, 2),
        ("local-cluster[2,1,1024]", {"spark.task.cpus": "2"}, 0),
        ("local-cluster[2,3,1024]", {"spark.task.cpus": "2"}, 2),
        ("local-cluster[2,4,1024]", {"spark.executor.cores": "3", "spark.task.cpus": "2"}, 2),
        ("local-cluster[2,4,1024]", {"spark.executor.cores": "2"}, 8),
        ("local-cluster[2,2,1024]", {"spark.cores.max": "3", "spark.task.cpus": "2"}, 1),
        ("local-cluster[2,2,1024]", {"spark.executor.cores": "4"}, 0),
        ("spark://a:7077", {}, None),
        ("spark://a:7077", {"spark.executor.cores": "1", "spark.task.cpus": "2"}, 0),
    ],
)
def test_task_slots_follow_from_the_master_and_the_settings(
    master: str, conf: dict[str, str], slots: int | None
) -> None:
    assert task_slots(parse_master(master), conf) == slots


@pytest.mark.parametrize(
    ("master", "conf", "words"),
    [
        ("local-cluster[2,1,1024]", ["spark.task.cpus=2"], ("can run no task", "spark.task.cpus")),
        ("local[4]", ["spark.task.cpus=2"], ("has 2 of 2 cores each", "--workers 2")),
        ("sc://127.0.0.1:1", [], ("cannot be reached", "start-connect-server.sh")),
        ("sc://", [], ("malformed", "sc://HOST:PORT")),
        ("yarn", [], ("HADOOP_CONF_DIR", "yarn-site.xml")),
        ("k8s://https://127.0.0.1:1", [], ("cannot be reached", "kubectl cluster-info")),
        ("k8s://127.0.0.1:x", [], ("malformed", "k8s://https://HOST:PORT")),
        ("spark://127.0.0.1:1", [], ("cannot be reached", "start-master.sh")),
        ("local[4]", ["spark.driver.host=no.such.host.invalid"], ("spark.driver.host", "listen")),
        ("local[4]", ["spark.driver.bindAddress=192.0.2.1"], ("spark.driver.bindAddress",)),
        ("local[4]", ["spark.executor.core=1"], ("did you mean spark.executor.cores?",)),
        ("local[4]", ["spark.task.cpus=0"], ("whole number",)),
    ],
)
def test_what_cannot_work_is_refused_at_once_in_one_line(
    master: str, conf: list[str], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_engine("spark", master=master, spark_conf=conf, ranks=3)
    assert time.monotonic() - began < 5.0
    (problem,) = caught.value.problems
    for word in words:
        assert word in problem


@pytest.mark.parametrize("variable", ["SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED"])
def test_spark_connect_is_refused_with_what_works(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "sc://somewhere")
    with pytest.raises(UserError) as caught:
        check("local[2]", (), 1)
    (problem,) = caught.value.problems
    assert "SparkContext" in problem
    assert "barrier" not in problem


def test_settings_of_other_names_are_left_to_spark() -> None:
    known = spark_checks._KNOWN
    others = ["spark.executor.heartbeatInterval", "spark.executorEnv.A", "spark.driver.log.dfsDir"]
    assert setting_problems(dict.fromkeys([*known, *others], "1"), {}) == []
