"""The network on another device, which computes shards there for a step on the host.

Weights, update, checkpoints and the sum over shards stay on the host; a step sends the weights to
the device once, computes each shard there by autograd, and brings its payload back whole. So the
sum is made in the same tree as ever, whoever computed what.

Nothing here is of one kind of device: the tests run it on the CPU, beside the ordinary step.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sixfold.core.random_keys import key
from sixfold.training.layers.joined_outputs import JoinedOutputs
from sixfold.training.layers.weights import put_gradients
from sixfold.training.losses.partners import Partners
from sixfold.training.step.device import CUDA, device_name, seed_device
from sixfold.training.step.flat import FlatState
from sixfold.training.step.graphs import Graphs, can_be_recorded
from sixfold.training.step.preprocessing import DevicePreprocessing

if TYPE_CHECKING:
    from sixfold.training.step.step import Shard, Step


class DeviceModel:
    """A copy of a step's network; see `sixfold.training.step.step.ComputeBackend`.

    Args:
        step: of the host, ready for its first shard.
        device: where the copy lives.
        pictures: makes pixels into images there.
        compute_dtype: of torch.autocast, if layers compute in another than that of the weights.

    Attributes:
        model: the copy; its weights are those of the last `refresh`.
    """

    def __init__(
        self,
        step: Step,
        device: torch.device,
        pictures: DevicePreprocessing,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        if device.type == CUDA:
            torch.cuda.set_device(device)
        self._host, self._draw, self._loss = step.state, step.draw, step.loss
        self._device, self._pictures, self._compute_dtype = device, pictures, compute_dtype
        # All copies draw from the one key that the step has entered.
        self.model = copy.deepcopy(step.model, {id(step.draw): step.draw}).to(device)
        self._joined = JoinedOutputs(self.model) if self._loss.several else None
        self._state = FlatState(self.model)
        self._versions = [-1] * len(self._state.kept)
        self._buffers, self._counters = self._state.buffers.clone(), self._state.counters()
        self._payload = torch.zeros(
            sum(self._state.sections), dtype=self._state.dtype, device=device
        )
        self._gradients = self._state.views(self._state.split(self._payload)[0])
        self._may_draw = not can_be_recorded(self.model)
        self._graphs: Graphs | None = None
        if device.type == CUDA and not self._may_draw:
            self._graphs = Graphs(self._compute, device)

    @property
    def is_pinned(self) -> bool:
        """Whether what comes and goes is worth having in memory that the device can read."""
        return self._device.type == CUDA

    def figures(self) -> dict[str, str | bool]:
        """What a result says of it."""
        graphs = self._graphs is not None and not self._graphs.failure
        return {"device": device_name(self._device), "cuda_graphs": graphs}

    def refresh(self) -> None:
        """Take over the host's weights and buffers."""
        host, own = self._host, self._state
        own.parameters.copy_(host.parameters)
        self._buffers.copy_(host.buffers)
        self._counters.copy_(host.counters())
        own.buffers.copy_(self._buffers)
        own.set_counters(self._counters)
        for number, (there, here) in enumerate(zip(own.kept, host.kept, strict=True)):
            if here._version != self._versions[number]:  # written to, by a file of weights
                there.detach().copy_(here)
                self._versions[number] = here._version

    def shard_payload(self, step: int, shard: Shard, out: Tensor) -> None:
        """Write one shard's contribution; as `Step.shard_payload`, on the weights of `refresh`.

        Args:
            step: number of the step, from 0.
            shard: its samples; pixels and what was drawn for them.
            out: (payload,) on the host, overwritten.
        """
        self._draw.enter(step, shard.index)
        if self._may_draw:
            seed_device(self._device, key(self._draw.seed, "torch", step, shard.index))
        self._state.train()
        images = self._pictures.ready(shard.images, shard.draws, shard.mix)
        inputs = [images, *(self._there(value) for value in self._truth(shard))]
        if self._graphs is None:
            self._compute(*inputs)
        else:
            self._graphs.run(*inputs)
        out.copy_(self._payload)  # waits for the device

    def _there(self, value: Tensor) -> Tensor:
        return value.to(self._device, non_blocking=True)

    def _truth(self, shard: Shard) -> list[Tensor]:
        """What `_compute` is told of the images: labels, weights, and those of their partners."""
        partners, weights = shard.partners, shard.weights
        if partners is None:
            return [shard.labels] if weights is None else [shard.labels, weights]
        share = torch.tensor(partners.share, dtype=self._host.dtype)
        ones = torch.ones(len(shard.labels), dtype=self._host.dtype)
        own, others = (ones if each is None else each for each in (weights, partners.weights))
        return [shard.labels, own, partners.labels, others, share]

    def _compute(
        self, images: Tensor, labels: Tensor, weights: Tensor | None = None, *others: Tensor
    ) -> None:
        """Fill the payload on the device, without a word to the host.

        Args:
            images: (n, C, H, W) on the device.
            labels: (n,) there, or (n, K).
            weights: (n,) there.
            others: labels and weights of the images' partners, and the share, if they are mixed.
        """
        state, samples = self._state, len(labels)
        state.buffers.copy_(self._buffers)
        state.set_counters(self._counters)
        with torch.enable_grad():
            logits = self._scores(images).to(state.dtype)
        from sixfold.training.step.step import compute_loss  # which imports nothing of this module

        told, partners = logits.detach(), Partners(*others) if others else None
        loss, grad, right = compute_loss(self._loss, self._joined, told, labels, weights, partners)
        found = torch.autograd.grad(logits, list(state.trainable), grad, allow_unused=True)
        put_gradients(self._gradients, found)
        state.settle()
        state.check_places()
        _, buffers, counters, extras = state.split(self._payload)
        torch.mul(state.buffers, samples, out=buffers)
        counters.copy_((state.counters() - self._counters) * samples)
        extras[0] = loss
        extras[1] = 0 if right is None else right
        extras[2].fill_(samples)
        if weights is None:
            extras[3].fill_(samples)
        else:
            own = weights.sum()
            extras[3] = own if partners is None else partners.mixed(own, others[1].sum())

    def _scores(self, images: Tensor) -> Tensor:
        if self._compute_dtype is None:
            scores: Tensor = (self._joined or self.model)(images)
            return scores
        # Weights that were rounded once must not be kept from one replay to the next.
        with torch.autocast(self._device.type, dtype=self._compute_dtype, cache_enabled=False):
            outputs: Tensor = (self._joined or self.model)(images)
        return outputs
