import pytest

from sixfold.core.errors import UserError
from sixfold.data.augmentation.views import View, parse_views, view_problems

PLAIN = View(0, 0, mirrored=False)


def test_views_are_products_of_shifts_and_flips() -> None:
    assert parse_views("none") == (PLAIN,)
    assert parse_views("flip") == (PLAIN, View(0, 0, mirrored=True))
    assert set(parse_views("shift:2")) == {
        PLAIN,
        *(View(*move, mirrored=False) for move in ((2, 0), (-2, 0), (0, 2), (0, -2))),
    }
    assert parse_views("shift, flip") == parse_views("flip,shift:1")
    assert len(set(parse_views("flip,shift:1"))) == 10


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        parse_views("flip:2,shift:0,turn,shift:x,none")
    first = [line.partition(":")[0].removeprefix("--tta ") for line in error.value.problems]
    assert first == ["flip", "shift", "turn", "flip", "none"]
    assert view_problems("flip") == []
    assert len(view_problems("")) == 1


def test_a_shift_out_of_sight_is_refused_where_the_size_is_known() -> None:
    assert len(parse_views("shift:7", (1, 8, 9))) == 5
    with pytest.raises(UserError, match="--tta shift:8: would move images of 8x9 out of sight"):
        parse_views("shift:8", (1, 8, 9))
