"""Batch normalisation with the statistics of the whole mini-batch, however it is divided.

See `sixfold.training.step.normalise` for the sums that it needs; all of them
are made in the tree of the logical shards. A shard's own sums are its contribution to the gradients
of weight and bias.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sixfold.training.step.frozen import keeps_statistics
from sixfold.training.step.lockstep import Lockstep
from sixfold.training.step.normalise import advance_running, normalise


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a network computes statistics over the samples it is given."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


class SyncBatchNorm(_BatchNorm):
    """Batch-norm that takes its statistics from all shards of the step.

    Args:
        norm: the module it replaces, whose parameters and buffers it takes over.
        lockstep: adds over all shards.
    """

    def __init__(self, norm: _BatchNorm, lockstep: Lockstep) -> None:
        super().__init__(
            norm.num_features,
            eps=norm.eps,
            momentum=norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
        )
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.training = norm.training
        self._lockstep = lockstep

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (N, C, ...)."""
        if not self.training:
            return super().forward(input)
        wide = torch.promote_types(input.dtype, torch.float32)
        if input.dtype != wide:  # statistics want all their bits
            return self.forward(input.to(wide)).to(input.dtype)
        self._check_input_dim(input)
        output, *statistics = normalise(input, self.weight, self.bias, self.eps, self._lockstep.sum)
        if self.track_running_stats:
            assert self.num_batches_tracked is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, var, count = statistics
            advance_running(
                self.running_mean,
                self.running_var,
                self.num_batches_tracked,
                self.momentum,
                (mean, var, count),
            )
        return output


def synchronise_norms(model: nn.Module, lockstep: Lockstep) -> nn.Module:
    """Replace every batch-norm of a network by a synchronised one, in place.

    Args:
        model: the network; if it is itself a batch-norm, its synchronised form is returned.
        lockstep: shared by all of them.
    """
    for name, module in list(model.named_modules()):
        is_done = isinstance(module, SyncBatchNorm) or keeps_statistics(module)
        if not isinstance(module, _BatchNorm) or is_done:
            continue
        synchronised = SyncBatchNorm(module, lockstep)
        if not name:
            return synchronised
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, synchronised)
    return model
