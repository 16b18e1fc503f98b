from __future__ import annotations

from sixfold.distributed.process_group.faults import FailureDiagnosis, Fault

PEER = Fault(kind="lost", rank=0, host="here", cause="lost by rank 1")
BROKEN = Fault(kind="lost", rank=2, host="here", cause="its connection broke")


def test_a_symptom_waits_for_its_cause() -> None:
    diagnosis = FailureDiagnosis({"peer": 3.0, "connection": 1.0})
    assert diagnosis.verdict(100.0) is None
    diagnosis.add(PEER, "peer", now=10.0)
    assert diagnosis.verdict(12.9) is None
    assert diagnosis.verdict(13.0) == PEER


def test_the_closer_symptom_counts_whatever_the_order() -> None:
    diagnosis = FailureDiagnosis({"peer": 3.0, "connection": 1.0})
    diagnosis.add(PEER, "peer", now=10.0)
    diagnosis.add(BROKEN, "connection", now=11.0)
    diagnosis.add(PEER, "peer", now=11.5)
    assert diagnosis.due == 12.0
    assert diagnosis.verdict(12.0) == BROKEN


def test_of_equals_the_first_counts() -> None:
    diagnosis = FailureDiagnosis()
    diagnosis.add(BROKEN, "connection", now=0.0)
    diagnosis.add(PEER, "connection", now=0.1)
    assert diagnosis.best == BROKEN
