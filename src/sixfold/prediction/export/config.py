"""Settings of `sixfold export`."""

from dataclasses import dataclass
from pathlib import Path

from sixfold.core.settings import Settings, option

SUFFIXES = {
    "onnx": (".onnx",),
    "torchscript": (".pt", ".ts", ".torchscript"),
    "exported": (".pt2", ".ep"),
}
"""Format -> endings of file names that mean it."""

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class ExportingConfig(Settings):
    """Which network is written, as what, and where."""

    run: str = option(
        "", "run directory of `sixfold train`, its model.safetensors, or a model.sixz"
    )
    format: str = option(
        AUTO,
        "what is written; auto: by the name of the file (.onnx; .pt or .ts: torchscript; .pt2: "
        "exported)",
        choices=(AUTO, *SUFFIXES),
    )
    out: str = option("", "file for the network")
    pixels: str = option(
        "uint8",
        "images that the written network takes: uint8 from 0 to 255, or float32 from 0 to 1",
        choices=("uint8", "float32"),
    )
    trust_model: bool = option(
        False, "run the code that the weights name even if it is not your project's"
    )

    @property
    def chosen_format(self) -> str:
        """The format, by the file's name if need be; empty if that does not tell."""
        if self.format != AUTO:
            return self.format
        suffix = Path(self.out).suffix.lower()
        return next((name for name, known in SUFFIXES.items() if suffix in known), "")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Everything that `sixfold export` takes."""

    exporting: ExportingConfig = ExportingConfig()

    def cross_problems(self) -> list[str]:
        """What is missing."""
        asked, found = self.exporting, []
        if not asked.run:
            found.append("give the network: sixfold export RUN --out FILE")
        if not asked.out:
            found.append("--out FILE: give the file for the network, such as model.onnx")
        elif not asked.chosen_format:
            known = ", ".join(ending for endings in SUFFIXES.values() for ending in endings)
            found.append(
                f"--out {asked.out}: its name tells no format: give --format "
                f"{', '.join(SUFFIXES)}, or a name that ends with {known}"
            )
        return found
