import pytest

from sixfold.distributed.tasks.task import Task, cache_keys, in_order, makespan, priorities


def test_an_identity_follows_from_settings_and_needs_and_nothing_else() -> None:
    base = [Task(name="a", settings={"x": 1}), Task(name="b", settings={}, dependencies=("a",))]
    same = [
        Task(name="y", settings={}, dependencies=("z",), cost=9.0),
        Task(name="z", settings={"x": 1}),
    ]
    other = [Task(name="a", settings={"x": 2}), Task(name="b", settings={}, dependencies=("a",))]
    found, again, changed = cache_keys(base), cache_keys(same), cache_keys(other)
    assert (found["a"], found["b"]) == (again["z"], again["y"])
    assert changed["a"] != found["a"]
    assert changed["b"] != found["b"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([Task(name="a", settings={}), Task(name="a", settings={})], "different names"),
        ([Task(name="a", settings={}, dependencies=("b",))], "no task"),
        (
            [
                Task(name="a", settings={}, dependencies=("b",)),
                Task(name="b", settings={}, dependencies=("a",)),
            ],
            "need each other",
        ),
    ],
)
def test_members_that_make_no_job_are_refused(members: list[Task], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        in_order(members)


def test_the_dearest_chain_comes_first() -> None:
    members = [
        Task(name="alone", settings={}, cost=3.0),
        Task(name="first", settings={}, cost=1.0),
        Task(name="second", settings={}, cost=2.5, dependencies=("first",)),
    ]
    assert priorities(members) == {"alone": 3.0, "second": 2.5, "first": 3.5}
    seconds = {"alone": 3.0, "first": 1.0, "second": 2.5}
    assert makespan(members, seconds, 1) == 6.5
    assert makespan(members, seconds, 2) == 3.5


def test_twelve_equal_members_on_two_workers_take_six_turns() -> None:
    members = [Task(name=str(i), settings={"i": i}) for i in range(12)]
    assert makespan(members, {m.name: 2.0 for m in members}, 2) == 12.0
