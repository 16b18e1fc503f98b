"""Reading `--model-args`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.models.arguments import argument_problems, parse_arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("none", None),
        ("small", "small"),
        ("7x7", "7x7"),
        ("a=b", "a=b"),
    ],
)
def test_values_are_read_as_what_they_look_like(text: str, value: object) -> None:
    parsed = parse_arguments(f" name = {text} ")[0]["name"]
    assert parsed == value
    assert type(parsed) is type(value)


@given(
    st.dictionaries(st.from_regex(r"\A[a-z_]{1,9}\Z"), st.integers() | st.floats(allow_nan=False))
)
def test_numbers_survive_a_round_trip(given_arguments: dict[str, float]) -> None:
    keywords = {name: value for name, value in given_arguments.items() if name.isidentifier()}
    assert parse_arguments(",".join(f"{k}={v!r}" for k, v in keywords.items())) == (keywords, [])


def test_nothing_gives_nothing() -> None:
    assert parse_arguments("") == parse_arguments("  ") == ({}, [])


def test_every_problem_is_told_at_once() -> None:
    arguments, problems = parse_arguments("width,=3,a=,1x=2,depth=1,depth=2,,ok=1")
    assert arguments == {"depth": 1, "ok": 1}
    assert len(problems) == 6
    assert problems[4] == "--model-args: depth is given twice"


def factory(shape: tuple[int, int, int], *, width: float = 1.0, depth: int = 2) -> None:
    """A factory with two arguments of its own."""


def optional(*, norm: bool | None = None, stem: str = "auto") -> None:
    """A factory whose argument may be none."""


def open_ended(**arguments: int) -> None:
    """A factory that takes anything."""


class Network:
    """A class as a factory."""

    def __init__(self, width: int) -> None:
        self.width = width


def test_types_are_checked_against_annotations() -> None:
    good = argument_problems(factory, {"width": 1, "depth": 3}, model="m", reserved=set())
    bad = argument_problems(factory, {"width": "wide", "depth": True}, model="m", reserved=set())
    assert good == []
    assert bad == [
        "--model-args: width=wide of m must be float",
        "--model-args: depth=True of m must be int",
    ]
    assert not argument_problems(optional, {"norm": None}, model="m", reserved=set())
    assert not argument_problems(optional, {"norm": True}, model="m", reserved=set())
    assert argument_problems(optional, {"norm": 1, "stem": None}, model="m", reserved=set()) == [
        "--model-args: norm=1 of m must be bool | None",
        "--model-args: stem=None of m must be str",
    ]
    assert argument_problems(Network, {"width": 0.5}, model="m", reserved=set()) == [
        "--model-args: width=0.5 of m must be int"
    ]


def test_unknown_and_reserved_names_are_explained() -> None:
    assert argument_problems(factory, {"wdth": 1, "shape": 2}, model="net", reserved={"shape"}) == [
        "--model-args: net has no argument 'wdth' (did you mean width?): it takes width, depth",
        "--model-args: shape of net follows from the data: leave it out",
    ]
    assert argument_problems(print, {"x": 1}, model="net", reserved=set()) != []
    assert argument_problems(open_ended, {"x": 1}, model="net", reserved=set()) == []


def test_a_factory_without_arguments_says_so() -> None:
    assert argument_problems(lambda: None, {"x": 1}, model="net", reserved=set()) == [
        "--model-args: net has no argument 'x': it takes none"
    ]
