"""Sparse coding's speed: a step of the dynamics, the way to the certificate, workers; with peers.

The peer of a step is LCA as it is usually written for PyTorch: potentials, a soft threshold, and
one convolution of the whole batch's codes with D^T D (Gram form), on two threads. The peer of the
certificate is the same number of images run for a fixed 1,000 steps, and scikit-learn's
`sparse_encode` where the dictionary is fully connected.

python benchmarks/lca.py step cifar10:PATH
python benchmarks/lca.py certificate cifar10:PATH
python benchmarks/lca.py certificate mnist:DIR --kernel full --atoms 1568 --max-images 16
python benchmarks/lca.py workers cifar10:PATH
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import sparse_encode
from torch import Tensor
from torch.nn import functional

from sixfold import data as datasets
from sixfold.data.config import DataConfig
from sixfold.lca import load_dictionary
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.geometry import Geometry
from sixfold.lca.inputs import ImageSource, open_images
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.solver import Solver


def read_pixels(spec: str, count: int) -> NDArray[np.uint8]:
    """Images (count, C, H, W) of the training part."""
    config = datasets.resolve(DataConfig(data=datasets.absolute_spec(spec)))
    return open_images(ImageSource(data=config, split="train")).pixels(np.arange(count))


def read_images(spec: str, count: int) -> Tensor:
    """Images (count, C, H, W) of the training part, each to mean 0 and deviation 1."""
    images = torch.from_numpy(read_pixels(spec, count)).float() / 255
    flat = images.flatten(1)
    return (images - flat.mean(1).view(-1, 1, 1, 1)) / flat.std(1).view(-1, 1, 1, 1)


def geometry_of(images: Tensor, arguments: argparse.Namespace) -> Geometry:
    """The sizes that the options ask for; zeros beyond the image, so that both forms are exact."""
    _, channels, height, width = images.shape
    if arguments.kernel == "full":
        return Geometry(
            channels=channels,
            height=height,
            width=width,
            atoms=arguments.atoms,
            kernel=(height, width),
        )
    size = int(arguments.kernel)
    return Geometry(
        channels=channels,
        height=height,
        width=width,
        atoms=arguments.atoms,
        kernel=(size, size),
        stride=(arguments.stride, arguments.stride),
        padding=(size // 2, size // 2),
        boundary="zero",
    )


def random_atoms(geometry: Geometry) -> Tensor:
    """Unit atoms (K, C, R, S)."""
    atoms = torch.randn(
        geometry.atoms, *geometry.atom_shape, generator=torch.Generator().manual_seed(0)
    )
    return functional.normalize(atoms.flatten(1)).view(atoms.shape)


def plain_gram(
    images: Tensor, atoms: Tensor, geometry: Geometry, threshold: float, tau: float, steps: int
) -> float:
    """Seconds of so many steps of LCA as it is usually written."""
    stride, padding = geometry.stride[0], geometry.padding[0]
    size = geometry.kernel[0]
    reach = (size - 1) // stride
    kernels = functional.conv2d(atoms, atoms, stride=stride, padding=reach * stride)
    kernels = kernels.transpose(0, 1).contiguous()
    drive = functional.conv2d(images, atoms, stride=stride, padding=padding)
    potential = torch.zeros_like(drive)
    begin = time.perf_counter()
    for _ in range(steps):
        code = functional.softshrink(potential, threshold)
        inhibition = functional.conv2d(code, kernels, padding=reach) - code
        potential += (drive - potential - inhibition) / tau
    return time.perf_counter() - begin


def own(
    images: Tensor, atoms: Tensor, geometry: Geometry, threshold: float, steps: int, form: str
) -> float:
    """Seconds of so many steps of every image with ours, no certificate asked for."""
    dynamics = DynamicsConfig(
        lambda_=threshold, form=form, max_steps=steps, tolerance=0.0, adaptive=False
    )
    solver = Solver(LateralInhibition(atoms, geometry, form=form), dynamics)
    begin = time.perf_counter()
    solver.solve(images)
    return time.perf_counter() - begin


def step(arguments: argparse.Namespace) -> None:
    """Milliseconds per image and step: both forms, on threads and processes, and the peer."""
    images = read_images(arguments.data, arguments.max_images)
    geometry = geometry_of(images, arguments)
    atoms = random_atoms(geometry)
    level, steps = arguments.lambda_, arguments.steps
    found: dict[str, list[float]] = {}

    def take(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(1000 * seconds / len(images) / steps)

    for _ in range(arguments.repeats):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for form in ("residual", "gram"):
                take(f"{form}, {threads} threads", own(images, atoms, geometry, level, steps, form))
            take(
                f"plain Gram form, {threads} threads",
                plain_gram(images, atoms, geometry, level, arguments.tau, steps),
            )
        for form in ("residual", "gram"):
            take(f"{form}, 2 processes", _two_processes(arguments, form))
    peer = found["plain Gram form, 2 threads"]
    for name, values in found.items():
        ratio = median(p / v for p, v in zip(peer, values, strict=True))
        print(
            f"{name:30s} {median(values):7.3f} ms/image/step ({min(values):.3f}-{max(values):.3f})"
            f"   {ratio:5.2f}x the plain Gram form on 2 threads"
        )
    print(f"lane width {geometry.lane_width}, form by formula: {geometry.form}")


def _two_processes(arguments: argparse.Namespace, form: str) -> float:
    """Half of the images in each of two processes of one thread, at once: the slower one's time."""
    command = [sys.executable, __file__, "half", arguments.data]
    command += ["--max-images", str(arguments.max_images // 2), "--steps", str(arguments.steps)]
    command += ["--atoms", str(arguments.atoms), "--kernel", arguments.kernel]
    command += ["--stride", str(arguments.stride), "--lambda", str(arguments.lambda_)]
    command += ["--form", form]
    halves = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for half in halves:
        assert half.stdout is not None
        half.stdout.readline()  # ready
    for half in halves:
        assert half.stdin is not None
        half.stdin.write("\n")
        half.stdin.flush()
    return max(float(half.communicate()[0]) for half in halves)


def half(arguments: argparse.Namespace) -> None:
    """One of two processes: warm up, say so, wait for the word, measure."""
    torch.set_num_threads(1)
    images = read_images(arguments.data, arguments.max_images)
    geometry = geometry_of(images, arguments)
    atoms = random_atoms(geometry)
    own(images, atoms, geometry, arguments.lambda_, 2, arguments.form)
    print("ready", flush=True)
    sys.stdin.readline()
    print(own(images, atoms, geometry, arguments.lambda_, arguments.steps, arguments.form))


def certificate(arguments: argparse.Namespace) -> None:
    """Seconds of one core until all certificates hold, beside 1,000 fixed steps and a peer."""
    torch.set_num_threads(1)
    if arguments.dictionary:
        learned = load_dictionary(arguments.dictionary)
        atoms, geometry = learned.atoms, learned.geometry
        images = learned.preprocess(read_pixels(arguments.data, arguments.max_images), atoms.dtype)
    else:
        images = read_images(arguments.data, arguments.max_images)
        geometry = geometry_of(images, arguments)
        atoms = random_atoms(geometry)
    interaction = LateralInhibition(atoms, geometry)
    level = arguments.lambda_
    for name, dynamics in {
        "to a gap of 1e-4": DynamicsConfig(lambda_=level, max_steps=20_000, tolerance=1e-4),
        "to a gap of 1e-6": DynamicsConfig(lambda_=level, max_steps=20_000, tolerance=1e-6),
        "1,000 fixed steps": DynamicsConfig(
            lambda_=level, max_steps=1000, tolerance=0.0, adaptive=False, state_momentum=0.0
        ),
    }.items():
        begin = time.process_time()
        solution = Solver(interaction, dynamics).solve(images)
        seconds = time.process_time() - begin
        print(
            f"{name}: {seconds:.2f} s, {int(solution.steps.min())} to {int(solution.steps.max())} "
            f"steps, {int(solution.solves.min())} to {int(solution.solves.max())} systems solved, "
            f"{int(solution.done.sum())} of {len(images)} done, gap up to "
            f"{float(solution.gap.max()):.1e}, "
            f"{100 * float(solution.sparsity.mean()):.1f}% zeros"
        )
        if name.startswith("to"):
            energy = solution.energy
    if geometry.dense:
        rows = images.flatten(1).double().numpy()
        table = atoms.flatten(1).double().numpy()
        begin = time.process_time()
        codes = sparse_encode(
            rows, table, algorithm="lasso_cd", alpha=arguments.lambda_, max_iter=10_000
        )
        seconds = time.process_time() - begin
        left = rows - codes @ table
        objective = (left**2).sum(1) / 2 + arguments.lambda_ * np.abs(codes).sum(1)
        above = (energy.numpy() - objective) / objective
        print(f"sparse_encode: {seconds:.2f} s; ours is up to {above.max():.1e} above it, relative")


def workers(arguments: argparse.Namespace) -> None:
    """A dictionary by 1, 2 and 3 workers: one hash, and updates/s."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for _ in range(arguments.repeats):
        for count in arguments.workers:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "sixfold", "lca", "learn"]
                command += ["--data", arguments.data, "--preprocess", "whiten"]
                command += ["--lambda", str(arguments.lambda_), "--kernel", arguments.kernel]
                command += ["--atoms", str(arguments.atoms), "--stride", str(arguments.stride)]
                command += ["--steps", str(arguments.steps), "--batch-size", "64"]
                command += ["--max-steps", str(arguments.max_steps)]
                command += ["--workers", str(count), "--out", f"{folder}/run"]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                result = json.loads(Path(folder, "run", "result.json").read_text())
                rows.setdefault(count, []).append(result)
                rate, name = result["updates_per_s"], result["dictionary_sha256"][:16]
                print(f"{count} workers: {rate:.3f} updates/s, {name}", flush=True)
    hashes = {result["dictionary_sha256"] for results in rows.values() for result in results}
    print(f"{len(hashes)} hash: {sorted(hashes)}")
    base = [result["updates_per_s"] for result in rows[arguments.workers[0]]]
    for count, results in rows.items():
        ratio = median(r["updates_per_s"] / b for r, b in zip(results, base, strict=True))
        print(f"{count} workers: {ratio:.2f}x one")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("step", "certificate", "workers", "half"))
    parser.add_argument("data")
    parser.add_argument("--max-images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--atoms", type=int, default=64)
    parser.add_argument("--kernel", default="9")
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--lambda", dest="lambda_", type=float, default=None)
    parser.add_argument("--tau", type=float, default=100.0)
    parser.add_argument("--form", default="auto")
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dictionary", help="a learned dictionary's run, for `certificate`")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    if arguments.lambda_ is None:
        arguments.lambda_ = 0.8 if arguments.what == "workers" else 0.05
    if arguments.steps is None:
        arguments.steps = 200 if arguments.what == "workers" else 30
    actions = {"step": step, "certificate": certificate, "workers": workers, "half": half}
    actions[arguments.what](arguments)


if __name__ == "__main__":
    main()
