"""`sixfold report` writes the page of the directory's own kind, or nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.lottery.config import TicketDataConfig, TicketGridConfig, TicketsConfig
from sixfold.lottery.run import tickets
from sixfold.studies.report.command import rewrite_report
from sixfold.training.config import TrainConfig


def test_the_page_of_a_search_for_tickets_is_written_as_it_was(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    base = configure(out=str(tmp_path / "job"), steps=2)
    tickets(
        TicketsConfig(
            trellis=TicketGridConfig(sparsities="0.5"),
            data=TicketDataConfig(data=base.data.data, validation=0.2),
            model=base.model,
            training=base.training,
            engine=base.engine,
            run=base.run,
        )
    )
    page = tmp_path / "job" / "report.html"
    before = page.read_text()
    page.unlink()
    assert rewrite_report(tmp_path / "job") == page
    assert page.read_text() == before
    member = next((tmp_path / "job" / "members").iterdir())
    with pytest.raises(UserError, match="holds a member of a job"):
        rewrite_report(member)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config": {"trellis": {}}}, "a search for tickets that is not finished"),
        ({"config": {"sweep": {}}}, "a sweep that is not finished"),
        ({"config": {"compression": {}}}, "a compression that is not finished"),
        ({"config": {"distortion": {}}}, "`sixfold evaluate` writes its report anew"),
        ({"config": {"profiling": {}}}, "a profile that is not finished"),
        ({"config": {"other": {}}}, "of no run whose report can be written again"),
        ({"matmul": {}}, "`sixfold lab matmul` writes its page anew"),
        ({"plan": {}}, "`sixfold plan` writes its page anew"),
        ({}, "it holds no config.json"),
    ],
)
def test_what_cannot_be_written_again_is_left_alone(
    tmp_path: Path, files: dict[str, Any], told: str
) -> None:
    (tmp_path / "report.html").write_text("mine")
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=told) as refused:
        rewrite_report(tmp_path)
    assert len(refused.value.problems) == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html",
        *(f"{name}.json" for name in files),
    }
    assert (tmp_path / "report.html").read_text() == "mine"
