"""Networks written for other programs: each format is run by its own library, on raw images."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.marks import quick_pairs
from torch import Tensor, nn

import sixfold
from sixfold.cli import main
from sixfold.core.errors import RunError, UserError
from sixfold.prediction.export import formats
from sixfold.training.model_card import ModelCard, pack

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.load:DeprecationWarning")

CARD = ModelCard(
    model="resnet20",
    model_args="depth=8",
    precision="float32",
    shape=(3, 16, 16),
    classes=("cat", "dog", "owl"),
    mean=(0.5, 0.4, 0.5),
    std=(0.25, 0.2, 0.3),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export")
    network = CARD.build()
    with torch.no_grad():
        for buffer in network.buffers():
            buffer.add_(1)
    (path / "model.safetensors").write_bytes(pack(network, CARD))
    return path


def pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)


def in_onnxruntime(file: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), found


def in_torchscript(file: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    extra = {formats.METADATA: ""}
    loaded = torch.jit.load(file, _extra_files=extra)  # type: ignore[no-untyped-call]
    return loaded, json.loads(extra[formats.METADATA])


def in_torch(file: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    extra = {formats.METADATA: ""}
    return torch.export.load(file, extra_files=extra).module(), json.loads(extra[formats.METADATA])


OPENED = {"n.onnx": in_onnxruntime, "n.pt": in_torchscript, "n.pt2": in_torch}


@pytest.mark.parametrize(
    ("name", "of"),
    quick_pairs(
        OPENED,
        ["uint8", "float32"],
        ("n.onnx", "uint8"),
        ("n.pt", "float32"),
    ),
)
def test_a_file_gives_the_scores_of_the_network(
    run: Path, tmp_path: Path, name: str, of: str
) -> None:
    if name.endswith("onnx"):
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="needs the extra onnx")
    figures = sixfold.export(run, tmp_path / name, pixels=of)
    assert figures["largest_difference"] < 1e-4 * figures["largest_score"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    score, metadata = OPENED[name](tmp_path / name)
    classes = metadata["classes"]
    assert (json.loads(classes) if isinstance(classes, str) else classes) == list(CARD.classes)
    assert metadata["pixels"] == of
    for count in (1, 4):
        images = pixels(count)
        with torch.no_grad():
            expected = sixfold.load(run)(images)
            found = score(images if of == "uint8" else images / 255)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_torchscript_refuses_pixels_that_it_would_misread(run: Path, tmp_path: Path) -> None:
    sixfold.export(run, tmp_path / "n.pt")
    score, _ = in_torchscript(tmp_path / "n.pt")
    with pytest.raises(Exception, match="not of the dtype"):
        score(pixels(1) / 255)


class Deciding(nn.Module):
    """Computes something else for one image than for several."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.linear(images.flatten(1))
        return scores if len(images) > 2 else -scores


def test_a_file_that_computes_something_else_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sixfold.prediction.export.run.load_network", lambda *_, **__: (Deciding(), CARD)
    )
    (tmp_path / "n.pt").write_bytes(b"older")
    with pytest.raises(RunError, match="gives other scores than the network"):
        sixfold.export(run, tmp_path / "n.pt")
    assert (tmp_path / "n.pt").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["export", str(run), "--format", "exported", "--out", str(tmp_path / "x")]) == 0
    assert "largest difference" in capsys.readouterr().out
    assert main(["export", str(run), "--out", str(tmp_path / "none" / "x.bin")]) == 2
    told = capsys.readouterr().err
    assert "its name tells no format" in told
    assert main(["export"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"--format onnx: .*pip install 'sixfold\[onnx\]'"):
        sixfold.export(run, tmp_path / "x.onnx")


@pytest.mark.full
def test_float64_becomes_float32_where_onnxruntime_has_no_other(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra onnx")
    card = dataclasses.replace(CARD, precision="float64")
    (tmp_path / "model.safetensors").write_bytes(pack(card.build(), card))
    assert sixfold.export(tmp_path, tmp_path / "n.onnx")["largest_difference"] > 0
    score, _ = in_onnxruntime(tmp_path / "n.onnx")
    images = pixels(3)
    with torch.no_grad():
        expected = sixfold.load(tmp_path)(images)
    np.testing.assert_allclose(score(images), expected, atol=1e-4)
    assert sixfold.export(tmp_path, tmp_path / "n.pt2")["largest_difference"] < 1e-10


def test_a_file_that_its_library_cannot_run_is_told_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> formats.Scorer:
        raise ValueError("no kernel\nand more")

    form = formats.FORMATS["torchscript"]._replace(open=fail)
    monkeypatch.setitem(formats.FORMATS, "torchscript", form)
    with pytest.raises(
        RunError, match=r"cannot be written as torchscript for torch\.jit: no kernel$"
    ):
        sixfold.export(run, tmp_path / "n.pt")
    assert not list(tmp_path.iterdir())
