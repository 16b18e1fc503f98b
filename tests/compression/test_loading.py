import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sixfold
from sixfold.compression.codec import container
from sixfold.compression.codec.wire import DamagedError
from sixfold.compression.loading import build_on_meta, card_of, load_network, read_card
from sixfold.core.errors import UserError
from sixfold.training.model_card import ModelCard, pack

CARD = ModelCard(
    model="resnet20",
    model_args="",
    precision="float32",
    shape=(3, 16, 16),
    classes=("cat", "dog", "owl"),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.2, 0.3),
)


def network_of(card: ModelCard) -> nn.Module:
    """A network with batch-norm whose buffers are not those of a fresh one."""
    network = card.build()
    with torch.no_grad():
        for buffer in network.buffers():
            buffer.add_(1)
    return network.eval()


def write(path: Path, network: nn.Module, card: ModelCard) -> Path:
    header = {"card": dataclasses.asdict(card)}
    path.write_bytes(container.to_bytes(header, network.state_dict(), "fixed")[0])
    return path


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_compressed_network_computes_what_it_computed(precision: str, tmp_path: Path) -> None:
    card = dataclasses.replace(CARD, precision=precision)
    network = network_of(card)
    path = write(tmp_path / "model.sixz", network, card)
    images = torch.randn(2, 3, 16, 16, dtype=getattr(torch, precision))
    loaded = sixfold.load(path)
    assert not loaded.training
    assert torch.equal(loaded.network(images), network(images))
    assert read_card(path) == card


def test_what_is_loaded_takes_raw_images_and_says_what_it_knows(tmp_path: Path) -> None:
    network = network_of(CARD)
    (tmp_path / "model.safetensors").write_bytes(pack(network, CARD))
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in (CARD.mean, CARD.std))
    expected = network((pixels / 255 - mean) / std)
    for path in (tmp_path, write(tmp_path / "model.sixz", network, CARD)):
        loaded = sixfold.load(path)
        for images in (pixels, pixels / 255, (pixels / 255).double()):
            torch.testing.assert_close(loaded(images), expected, rtol=1e-4, atol=1e-4)
        assert loaded.classes == CARD.classes
        assert loaded.shape == CARD.shape
        torch.testing.assert_close((loaded.mean, loaded.std), (mean.flatten(), std.flatten()))
        assert loaded.state_dict().keys() == network.state_dict().keys()
        # As a layer of another network, and from that one's state.
        outer = nn.Sequential(loaded, nn.Softmax(1))
        copied = copy.deepcopy(outer)
        for weight in copied.parameters():
            nn.init.zeros_(weight)
        copied.load_state_dict(outer.state_dict())
        loaded.load_state_dict(network.state_dict())
        assert torch.equal(copied(pixels), outer(pixels))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (torch.randn(2, 3, 16, 16), "expected 0 to 1, or uint8: images are normalised in here"),
        (torch.full((2, 3, 16, 16), 255.0), "pixels from 255 to 255"),
        (torch.full((2, 3, 16, 16), torch.nan), "pixels from nan"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.int64), "int64: expected uint8"),
        (torch.zeros(2, 1, 16, 16), r"expected \(N, 3, H, W\)"),
        (torch.zeros(3, 16, 16), r"expected \(N, 3, H, W\)"),
    ],
)
def test_images_that_are_not_raw_are_refused(
    tmp_path: Path, images: torch.Tensor, reason: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack(network_of(CARD), CARD))
    with pytest.raises(UserError, match=reason):
        sixfold.load(tmp_path)(images)


def test_a_network_with_lazy_layers_is_loaded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazily.py").write_text(
        "from torch import nn\n"
        "def network(shape, classes):\n"
        "    norm = nn.LazyBatchNorm2d(affine=False)\n"
        "    return nn.Sequential(norm, nn.Flatten(), nn.LazyLinear(classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    card = dataclasses.replace(CARD, model="lazily:network")
    network = network_of(card)
    images = torch.randn(2, 3, 16, 16)
    assert build_on_meta(card).state_dict().keys() == network.state_dict().keys()
    loaded = sixfold.load(write(tmp_path / "model.sixz", network, card))
    assert torch.equal(loaded.network(images), network(images))


def test_load_takes_plain_weights_and_run_directories_too(tmp_path: Path) -> None:
    network = network_of(CARD)
    (tmp_path / "model.safetensors").write_bytes(pack(network, CARD))
    images = torch.randn(2, 3, 16, 16)
    for path in (tmp_path, str(tmp_path / "model.safetensors")):
        assert torch.equal(sixfold.load(path).network(images), network(images))


FACTORY = '''
"""A network with a buffer that its state leaves out."""
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.linear = nn.Linear(768, num_classes)
        self.register_buffer("scale", torch.full((1,), 3.0), persistent=False)

    def forward(self, images):
        return self.linear(images.flatten(1)) * self.scale

def scaled(num_classes):
    return Scaled(num_classes)
'''


def test_the_user_s_own_network_with_buffers_outside_of_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_scaled.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    card = dataclasses.replace(CARD, model="own_scaled:scaled")
    network = card.build().eval()
    path = write(tmp_path / "model.sixz", network, card)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(sixfold.load(path).network(images), network(images))


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"model_args": None},
        {"precision": "int64"},
        {"shape": [3, 16]},
        {"shape": [3, 16, True]},
        {"shape": [3, 1 << 40, 16]},
        {"shape": "3x16"},
        {"classes": "abc"},
        {"classes": [1, 2]},
        {"mean": [0.5]},
        {"std": [0.1, 0.2, float("nan")]},
    ],
)
def test_cards_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    fields = dataclasses.asdict(CARD) | {
        "shape": list(CARD.shape),
        "classes": list(CARD.classes),
        "mean": list(CARD.mean),
        "std": list(CARD.std),
    }
    assert card_of({"card": fields}) == CARD
    with pytest.raises(DamagedError):
        card_of({"card": fields | change})
    with pytest.raises(DamagedError):
        card_of({})


def test_a_file_for_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    network = network_of(CARD)
    other = dataclasses.replace(CARD, model="lenet300")
    with pytest.raises(UserError, match="in the file and") as caught:
        load_network(write(tmp_path / "model.sixz", network, other))
    assert len(caught.value.problems) == 1
    unknown = dataclasses.replace(CARD, model="lenet3000")
    with pytest.raises(UserError, match="lenet3000"):
        load_network(write(tmp_path / "model.sixz", network, unknown))
    impossible = dataclasses.replace(CARD, model="lenet5", shape=(3, 4, 4))
    with pytest.raises(UserError, match=r"model\.sixz"):
        load_network(write(tmp_path / "model.sixz", network, impossible))
