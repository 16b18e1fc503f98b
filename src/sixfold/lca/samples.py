"""What a report shows of a dictionary: images, their reconstructions, and activations."""

import dataclasses

import torch
from torch import Tensor

from sixfold.core import tensor_file
from sixfold.lca.dictionary import Learned
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.solver import Solver

BINS = 40  # bars of the histogram of activations


def make_samples(learned: Learned, images: Tensor, seen: Tensor) -> bytes:
    """Reconstructions of images (n, C, H, W), and activations, as a safetensors file."""
    interaction = LateralInhibition(learned.atoms, learned.geometry)
    dynamics = dataclasses.replace(learned.dynamics, form="auto")
    solution = Solver(interaction, dynamics).solve(images)
    residuals = interaction.residual(images, solution.codes)
    sizes = solution.codes[solution.codes != 0].abs().double()
    top = float(sizes.max()) if len(sizes) else 1.0
    tensors = {
        "images": images,
        "reconstructions": images - residuals,
        "energy": solution.energy,
        "active": solution.active,
        "error": residuals.flatten(1).double().square().sum(1)
        / images.flatten(1).double().square().sum(1).clamp(min=1e-300),
        "steps": solution.steps,
        "seen": seen,
        "histogram": torch.histc(sizes, bins=BINS, min=0.0, max=top),
        "histogram_top": torch.tensor([top], dtype=torch.float64),
    }
    return tensor_file.pack(tensors, {})
