"""What a factory is called with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.models.checking import check
from sixfold.models.config import ModelConfig
from sixfold.models.factory import ModelFactory, model_factory

Write = Callable[..., Path]

NETS = """
from torch import nn
class Any(nn.Linear):
    def __init__(self, **given):
        super().__init__(1, 1)
        self.given = given
def plain(): return Any()
def named(shape, num_classes): return Any(shape=shape, num_classes=num_classes)
def sized(image_size, in_channels=1, *, in_shape): return Any(image_size=image_size, c=in_channels)
def needy(channels, groups, classes): return Any()
def wrong(): return 3
def fails():
    raise RuntimeError("cannot\\nbe built")
def leaves(): raise SystemExit
def lazily():
    import beside
    return Any(value=beside.VALUE)
def half(): return Any().half()
def usual(n_classes, in_chans, img_size=8): return Any()
def anywhere(*sizes): return nn.Linear(*sizes)
def by_place(num_classes, /): return Any()
class Anywhere(nn.Linear):
    def __init__(self, *sizes): super().__init__(*(sizes or (1, 1)))
class Own(Any):
    def __init__(self, classes=10, width=4): super().__init__(classes=classes, width=width)
    @classmethod
    def wide(cls, classes): return cls(classes, 400)
class Handed(Own):
    def __init__(self, *args, depth=1, **kwargs): super().__init__(*args, **kwargs)
class Settled(Own):
    def __init__(self, **kwargs): super().__init__(classes=3, **kwargs)
"""


def recipe_for(model: str, arguments: str = "", *, columns: int = 32) -> ModelFactory:
    config = ModelConfig(model=model, model_args=arguments)
    return model_factory(config, shape=(3, 32, columns), classes=7)


def problems(model: str, arguments: str = "") -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        recipe_for(model, arguments).make()
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


@pytest.fixture(autouse=True)
def nets(write: Write) -> None:
    write("nets.py", NETS)


@pytest.mark.parametrize(
    ("factory", "text", "arguments"),
    [
        ("plain", "", {}),
        ("named", "", {"shape": (3, 32, 32), "num_classes": 7}),
        ("Own", "width=5", {"classes": 7, "width": 5}),
        ("Own.wide", "", {"classes": 7}),
        ("Own", "classes=3", {"classes": 3}),
        ("Any", "depth=2", {"depth": 2}),
        ("usual", "", {"n_classes": 7, "in_chans": 3, "img_size": 32}),
        ("Handed", "", {"classes": 7}),
        ("Handed", "width=5,depth=2", {"classes": 7, "width": 5, "depth": 2}),
        ("Settled", "", {}),
        ("Anywhere", "", {}),
    ],
)
def test_a_factory_gets_what_its_signature_asks_for(
    factory: str, text: str, arguments: dict[str, object]
) -> None:
    assert recipe_for(f"nets:{factory}", text).arguments == arguments


def test_image_size_is_a_number_only_if_images_are_square() -> None:
    assert recipe_for("nets:sized").arguments["image_size"] == 32
    assert recipe_for("nets:sized", columns=48).arguments == {
        "image_size": (32, 48),
        "in_channels": 3,
        "in_shape": (3, 32, 48),
    }


def test_a_factory_may_import_its_neighbours_when_it_is_called(write: Write) -> None:
    write("beside.py", "VALUE = 5")
    made = recipe_for("nets:lazily").make()
    assert made.given == {"value": 5}


def test_networks_are_float32() -> None:
    assert {p.dtype.itemsize for p in recipe_for("nets:half").make().parameters()} == {4}


def test_what_goes_wrong_in_a_factory_is_one_line() -> None:
    assert problems("nets:wrong") == (
        "nets:wrong: wrong() returned int, which is no torch.nn.Module",
    )
    assert problems("nets:fails") == (
        "nets:fails: fails() raised RuntimeError: cannot (nets.py line 13)",
    )
    assert problems("nets:leaves")[0].startswith("nets:leaves: leaves() raised SystemExit")
    assert problems("nets:needy") == (
        "nets:needy needs channels, groups: give --model-args channels=...,groups=...",
    )


def test_unknown_networks_come_with_close_matches() -> None:
    (problem,) = problems("lenet")
    assert problem.startswith("unknown model 'lenet': did you mean lenet5 or alexnet? The zoo has")
    assert "did you mean mobilenet_v2?" in problems("MobileNetV2")[0]
    assert "did you mean" not in problems("zzz")[0]


def test_problems_of_name_and_arguments_come_together() -> None:
    assert len(problems("lenet6", "a,b")) == 3
    assert len(problems("resnet20", "a,dept=3,shape=2,shortcut=1")) == 4


def test_values_out_of_range_are_explained_by_the_network() -> None:
    assert problems("resnet20", "depth=21") == (
        "resnet20: depth=21 must be 6n+2: 8, 14, 20, 32, 44, 56 or 110, say",
    )


SCRIPTED = """
import torch
from torch import nn
def scripted(): return torch.jit.script(nn.Linear(1, 1))
def traced(): return torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1))
def inside(): return nn.Sequential(nn.Flatten(), torch.jit.script(nn.ReLU()))
"""


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["scripted", "traced", "inside"])
def test_a_scripted_network_is_refused(write: Write, name: str) -> None:
    write("scripted_net.py", SCRIPTED)
    found = model_factory(ModelConfig(model=f"scripted_net:{name}"), shape=(1, 1, 1), classes=1)
    with pytest.raises(UserError, match="is scripted or traced by torch"):
        found.make()


MADE_FOR_USE = """
import torch
from torch import nn

def base():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def exported():
    sizes = ({0: torch.export.Dim("n")},)
    return torch.export.export(base(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=sizes).module()

def inside():
    return nn.Sequential(exported(), nn.Linear(10, 10))

def quantized():
    return torch.ao.quantization.quantize_dynamic(base(), {nn.Linear}, dtype=torch.qint8)

class Extra(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass

def extra():
    return nn.Sequential(nn.Flatten(), Extra(64, 10))

class Odd(nn.Sequential):
    def train(self, mode=True):
        raise RuntimeError("not here")

def odd():
    return Odd(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("exported", "the network comes from torch.export"),
        ("inside", "its layer '0' comes from torch.export"),
        ("quantized", "of its state_dict is no tensor"),
        ("extra", "'1._extra_state' of its state_dict is no tensor"),
        ("odd", "its train(True) raised RuntimeError: not here (made_net.py line"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_in_a_line(
    write: Write, name: str, told: str
) -> None:
    write("made_net.py", MADE_FOR_USE)
    (line,) = check(ModelConfig(model=f"made_net:{name}"), shape=(1, 8, 8), classes=10)
    assert told in line
    assert "\n" not in line


def test_factories_that_take_anything_are_told_what_they_are_given() -> None:
    (problem,) = problems("nets:anywhere")
    assert "names of num_classes, in_channels, image_size and shape, and *sizes names" in problem
    assert problems("nets:by_place") == (
        "nets:by_place takes num_classes by position only: arguments are given by name, so remove "
        "the / from its signature",
    )
