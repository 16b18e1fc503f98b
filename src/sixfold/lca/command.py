"""`sixfold lca learn` and `sixfold lca encode`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.core.errors import UserError
from sixfold.lca.config import DynamicsConfig, LcaEncodeConfig, LcaLearnConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Encode(LcaEncodeConfig):
    """Coding, with the dynamics that may differ from the learning's."""

    dynamics: DynamicsConfig = DynamicsConfig()


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of both modes: every field of their configurations."""
    modes = parser.add_subparsers(dest="mode", metavar="learn|encode")
    learn = modes.add_parser(
        "learn", description="learn a dictionary for sparse codes of images", allow_abbrev=False
    )
    learn.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or JSON")
    add_options(learn, LcaLearnConfig)
    encode = modes.add_parser(
        "encode",
        description="code images with a learned dictionary; the dynamics are those of the "
        "learning where nothing else is said",
        allow_abbrev=False,
    )
    encode.add_argument("run_word", nargs="?", metavar="RUN", help="run directory of `lca learn`")
    add_options(encode, _Encode)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Learn or encode, and print the figures."""
    if arguments.mode is None:
        raise UserError([*problems, "say what to do: sixfold lca learn, or sixfold lca encode RUN"])
    values = vars(arguments)
    return _learn(values, problems) if arguments.mode == "learn" else _encode(values, problems)


def _learn(values: dict[str, Any], problems: list[str]) -> int:
    config, unread = read_config(LcaLearnConfig, values, values["config"])
    refuse(config, [*problems, *unread])
    from sixfold.lca.run import lca_learn

    with Console() as console:
        result = lca_learn(config, on_event=console)
    speed = result.get("updates_per_s")
    if speed:
        print(
            f"speed              {speed:.3g} updates/s, {speed * config.learn.batch_size:,.0f} "
            f"images/s on {result['workers']} workers ({result['engine']})"
        )
    print(f"interaction        {result['form']} form, {result['lane_width']} elements a lane")
    print(f"wall time          {result['wall_s']:.1f} s")
    print(f"dictionary         sha256 {result['dictionary_sha256']}")
    print(f"report             {result['report']}")
    return 0


def _encode(values: dict[str, Any], problems: list[str]) -> int:
    values["run"] = values["run"] or values["run_word"]
    config, unread = read_config(_Encode, values)
    refuse(config, [*problems, *unread])
    from sixfold.lca.run import lca_encode

    given = {
        field.name: getattr(config.dynamics, field.name)
        for field in dataclasses.fields(DynamicsConfig)
        if values.get(field.name) is not None
    }
    with Console() as console:
        figures = lca_encode(config, given, on_event=console)
    print(f"images             {figures['images']:,}")
    print(f"energy             {figures['energy']:.6g} (mean)")
    print(f"error              {figures['error']:.3%} of |x|^2")
    print(f"sparsity           {figures['sparsity']:.2%} of the entries are zero")
    print(f"certified          {figures['certified']:.1%}, after {figures['steps']:.0f} steps each")
    print(f"codes              {figures['file']}")
    return 0
