"""One training step over logical shards: forward, loss, backward. Defined here and nowhere else.

A shard's contribution depends on (weights and buffers at the start of the step, step number,
shard number, its samples) and on nothing else, so any rank can compute, or compute again, any
shard of any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from sixfold.data.augmentation.moves import Draws
from sixfold.data.augmentation.spec import Mix
from sixfold.distributed.logical_shards import Node, TreeFold
from sixfold.distributed.process_group import Buffer
from sixfold.distributed.process_group.ambient import (
    Randomness,
    restore_randomness,
    save_randomness,
)
from sixfold.models.shapes import Shape
from sixfold.training.config import TrainConfig
from sixfold.training.layers.dropout import Draw, key_dropout
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.layers.joined_outputs import JoinedOutputs
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool
from sixfold.training.layers.tracing import StagedNetwork
from sixfold.training.losses import cross_entropy, partners
from sixfold.training.losses.loss import Loss
from sixfold.training.losses.partners import Partners
from sixfold.training.step.device import CPU
from sixfold.training.step.flat import FlatState
from sixfold.training.step.lockstep import Lockstep, SharedState, TotalSum, replay
from sixfold.training.step.micro_batches import MicroBatch, choose, micro_batches
from sixfold.training.step.norm_sync import synchronise_norms
from sixfold.training.step.precision import CastCopy, compute_dtype_of


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One logical shard of a mini-batch.

    Attributes:
        index: its number within the step.
        images: (n, C, H, W), normalised; or uint8 pixels, where a device makes them ready.
        labels: (n,) int64, or (n, K) targets where an image has several labels or numbers.
        draws: how the device augments the pixels, if it does.
        weights: (n,) how much each sample counts; None: all the same.
        partners: what is true of the images that these are mixed with, if they are.
        mix: how the device mixes the images, if it does.
    """

    index: int
    images: Tensor
    labels: Tensor
    draws: Draws | None = None
    weights: Tensor | None = None
    partners: Partners | None = None
    mix: Mix | None = None

    def cut(self, part: slice) -> Shard:
        """A part of it, with the same number."""
        weights = None if self.weights is None else self.weights[part]
        partners = None if self.partners is None else self.partners.cut(part)
        images, labels = self.images[part], self.labels[part]
        return replace(self, images=images, labels=labels, weights=weights, partners=partners)

    @property
    def weight(self) -> float:
        """How much its samples count together."""
        if self.weights is None:
            return len(self.labels)
        own = self.weights.sum().item()
        if self.partners is None or self.partners.weights is None:
            return own
        return float(self.partners.mixed(own, self.partners.weights.sum().item()))


@dataclass(frozen=True, kw_only=True)
class StepTotals:
    """What a whole step amounts to, the same on every rank.

    Attributes:
        gradient: (P,) mean gradient over the samples by their weights; a view that the next step
            overwrites.
        loss: mean loss over the samples by their weights.
        accuracy: part of the samples that were told right; None where there is no right.
        samples: number of samples.
        wishes: whether a rank wishes for another view.
    """

    gradient: Tensor
    loss: float
    accuracy: float | None
    samples: int
    wishes: bool = False


class ComputeBackend(Protocol):
    """Computes shards on another device: see `sixfold.training.step.device_model`."""

    @property
    def is_pinned(self) -> bool:
        """Whether payloads lie in pinned memory."""
        ...

    def refresh(self) -> None:
        """Take over the weights and buffers of the step."""
        ...

    def shard_payload(self, step: int, shard: Shard, out: Tensor) -> None: ...


class Step:
    """Computes shards and puts their sum to use.

    Args:
        model: the network, on the CPU, in the precision to be used. It is rewritten for speed
            without changing its values (`sixfold.training.layers.rewrites`); its dropout modules
            are replaced by keyed ones and, with `sync_norms`, its batch-norms by synchronised ones.
        seed: of the run.
        sync_norms: batch-norm over the whole batch instead of over each shard.
        compute_dtype: with which layers compute, if with another than that of the weights; see
            `sixfold.training.step.precision`.
        loss: what is made small; cross-entropy if absent.

    Attributes:
        micro_batch: how shards are cut; not at all, unless that is set (see `open_step`).
        backend: computes the shards, if the host does not; to be set before the first payload.
        model: the network as it is trained.
        state: its flat parameters and buffers.
        executor: the network as layers, which computes values and gradients.
        wish: whether this rank wishes for another view of the group, for all to hear.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int,
        sync_norms: bool = False,
        compute_dtype: torch.dtype | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.draw = Draw(seed)
        self.loss = loss or cross_entropy.make()
        self.micro_batch = MicroBatch()
        self.backend: ComputeBackend | None = None
        self.wish = False
        self.lockstep = Lockstep() if sync_norms else None
        model = key_dropout(fused_max_pool(relu_behind_max_pool(model)), self.draw)
        if self.lockstep is not None:
            model = synchronise_norms(model, self.lockstep)
        self.model = model
        self.state = FlatState(model)
        self._copies = None if compute_dtype is None else CastCopy(self.state, compute_dtype)
        self._joined = JoinedOutputs(model) if self.loss.several else None
        # Within a synchronised norm all shards meet, which only a whole graph can wait for, or a
        # network that was made for it.
        self.executor = LayerExecutor(
            self._joined or model,
            self.state.trainable,
            whole=self.loss.several or (sync_norms and not isinstance(model, StagedNetwork)),
            copies=None if self._copies is None else self._copies.views(),
        )
        if self.loss.several:
            self.executor.left[type(model).__name__] = "it has several outputs"
        self._is_current = self._is_settled = False
        self._piece: Tensor | None = None
        self._spare: list[Tensor] = []
        self._folded: list[Tensor] = []

    def new_payload(self) -> Tensor:
        """A vector for a payload; zeros, since the padding between parameters is never written."""
        pinned = self.backend is not None and self.backend.is_pinned
        return torch.zeros(sum(self.state.sections), dtype=self.state.dtype, pin_memory=pinned)

    def shard_payload(self, step: int, shard: Shard, out: Tensor) -> None:
        """Write one shard's contribution to the sum of the step.

        The network's buffers are left as they were.

        Args:
            step: number of the step, from 0.
            shard: its samples.
            out: from `new_payload`, overwritten; see `sixfold.training.step.flat` for its parts.
        """
        if not self._is_current:
            self._refresh()
        if self.backend is not None:
            self.backend.shard_payload(step, shard, out)
            self.state.parts(out).extras[-1] = self.wish
            return
        before = self._save_buffers()
        try:
            self._compute_shard(step, shard, out, before)
        finally:  # also where a divided network has lost a rank within the shard
            if before is not None:
                self.state.buffers.copy_(before[0])
                self.state.set_counters(before[1])

    def _compute_shard(
        self, step: int, shard: Shard, out: Tensor, before: tuple[Tensor, Tensor] | None
    ) -> None:
        state, samples = self.state, len(shard.labels)
        self.draw.enter(step, shard.index, seed_torch=self.executor.needs_autograd)
        state.train()
        parts = state.parts(out)
        loss, right, weight = 0.0, 0.0, 0.0
        cuts = micro_batches(samples, self.micro_batch.images)
        for place, cut in enumerate(cuts):
            if len(cuts) > 1:
                self.draw.take(cut.start, cut.stop, samples)
            gradients = parts.gradients if place == 0 else self._piece_gradients()
            piece = shard.cut(cut)
            found = self._compute_piece(piece, gradients)
            loss, right = loss + found[0], right + found[1]
            weight += piece.weight
            if place > 0:
                self._add_piece(out)
        self._settle()
        if before is not None:
            torch.mul(state.buffers, samples, out=parts.buffers)
            parts.counters.copy_((state.counters() - before[1]) * samples)
        parts.extras[:] = loss, right, samples, weight, self.wish

    def _settle(self) -> None:
        """Bring back what the user's own code has moved out of the flat vectors."""
        if self.executor.needs_autograd:
            self.state.settle()
        if not self._is_settled:
            self.state.check_places()
            self._is_settled = True

    def _compute_piece(self, piece: Shard, gradients: Sequence[Tensor]) -> tuple[float, float]:
        """Write the gradients of some images; their loss, and how many were told right."""
        outputs, saved = self.executor.forward(channels_last(piece.images))
        logits = outputs.to(self.state.dtype)
        truth = piece.labels, piece.weights, piece.partners
        loss, grad, right = compute_loss(self.loss, self._joined, logits, *truth)
        self.executor.backward(saved, grad, gradients)
        return loss.item(), 0.0 if right is None else right.item()

    def _piece_gradients(self) -> Sequence[Tensor]:
        """Where the gradients of all pieces but a shard's first are written."""
        if self._piece is None:
            self._piece = self.new_payload()
        return self.state.parts(self._piece).gradients

    def _add_piece(self, out: Tensor) -> None:
        assert self._piece is not None
        length = len(self.state.parameters)
        out[:length] += self._piece[:length]

    def partials(
        self,
        step: int,
        shards: Iterable[Shard],
        total_sum: TotalSum | None = None,
        on_payload: Callable[[int, Tensor], None] | None = None,
    ) -> list[tuple[Node, Buffer]]:
        """Compute a run of shards and fold what can be folded.

        Args:
            step: number of the step, from 0.
            shards: this rank's, in order.
            total_sum: adds a value per shard over all ranks; needed with `sync_norms`.
            on_payload: called with every shard's number and payload, before it is folded.

        Returns:
            The payloads of the cover of the run; valid until `release`.
        """
        fold: TreeFold[Tensor] = TreeFold(self._add)
        self._refresh()  # once for all shards
        self._is_current = True
        try:
            for shard, out in self._compute(step, shards, total_sum):
                if on_payload is not None:
                    on_payload(shard, out)
                fold.push(Node(0, shard), out)
        finally:
            self._is_current = False
        self._folded = [value for _, value in fold.nodes]
        return [(node, value.numpy()) for node, value in fold.nodes]

    def _refresh(self) -> None:
        """Let all copies of the weights follow them."""
        for copied in (self._copies, self.backend):
            if copied is not None:
                copied.refresh()

    def _compute(
        self, step: int, shards: Iterable[Shard], total_sum: TotalSum | None
    ) -> Iterator[tuple[int, Tensor]]:
        """The shards' numbers and payloads, in order."""
        if self.lockstep is None:
            for shard in shards:
                out = self._take()
                self.shard_payload(step, shard, out)
                yield shard.index, out
            return
        if total_sum is None:
            raise ValueError("synchronised batch-norm needs total_sum")
        run = [(shard, self._take()) for shard in shards]
        self._in_lockstep(step, run, total_sum, self.lockstep)
        yield from ((shard.index, out) for shard, out in run)

    def _in_lockstep(
        self,
        step: int,
        run: Sequence[tuple[Shard, Tensor]],
        total_sum: TotalSum,
        lockstep: Lockstep,
    ) -> None:
        lockstep.run(
            [(shard.index, partial(self.shard_payload, step, shard, out)) for shard, out in run],
            total_sum,
            SharedState(save=self._save_shared, restore=self._restore_shared),
        )

    def shard_again(self, step: int, shard: Shard, out: Tensor) -> None:
        """Write the payload of any one shard of the step whose `partials` were computed last.

        Args:
            step: number of that step, from 0.
            shard: its samples.
            out: from `new_payload`, overwritten.
        """
        if self.lockstep is None:
            self.shard_payload(step, shard, out)
        else:
            totals = replay(list(self.lockstep.totals))
            self._in_lockstep(step, [(shard, out)], totals, self.lockstep)

    @property
    def payloads(self) -> int:
        """How many payloads there are, in use or not."""
        return len(self._spare) + len(self._folded)

    def release(self) -> None:
        """Let the payloads of `partials` be used again."""
        self._spare += self._folded
        self._folded = []

    def finish(self, total: Tensor) -> StepTotals:
        """Take the sum over all shards: move the buffers on, and give the mean gradient.

        Args:
            total: (payload,), the same on every rank; overwritten.
        """
        totals = self.totals(total)
        if self.state.has_buffers:
            self.state.move_buffers(total)
        return totals

    def totals(self, total: Tensor) -> StepTotals:
        """The same without moving the buffers."""
        gradient, _, _, extras = self.state.split(total)
        loss, right, samples, weight, wishes = extras.tolist()
        if weight > 0 and weight != 1:  # 0: no sample counts, and nothing is learned
            gradient /= weight
        return StepTotals(
            gradient=gradient,
            loss=loss / weight if weight else loss,
            accuracy=None if self.loss.score is None else right / max(samples, 1),
            samples=int(samples),
            wishes=wishes > 0,
        )

    def _save_buffers(self) -> tuple[Tensor, Tensor] | None:
        """What a forward pass may change, if there is any of it."""
        state = self.state
        if not state.has_buffers:
            return None
        return state.buffers.clone(), state.counters()

    def _save_shared(self) -> tuple[Tensor, Tensor, Randomness, int, int]:
        state, draw = self.state, self.draw
        state.settle()
        buffers = state.buffers.clone(), state.counters()
        return *buffers, save_randomness(), draw.step, draw.shard

    def _restore_shared(self, saved: tuple[Tensor, Tensor, Randomness, int, int]) -> None:
        buffers, counters, randomness, step, shard = saved
        self.state.buffers.copy_(buffers)
        self.state.set_counters(counters)
        restore_randomness(randomness)
        self.draw.step, self.draw.shard = step, shard

    def _take(self) -> Tensor:
        if self._spare:
            return self._spare.pop()
        return self.new_payload()

    def _add(self, left: Tensor, right: Tensor) -> Tensor:
        left += right
        self._spare.append(right)
        return left


def compute_loss(
    loss: Loss,
    joined: JoinedOutputs | None,
    outputs: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    others: Partners | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss, its gradient, and how many samples are told right, if that is a question.

    Args:
        loss: what is made small.
        joined: what has put several outputs side by side; None if there is one.
        outputs: (n, K).
        labels: what is true of the n images.
        weights: (n,) of them.
        others: of the images that they are mixed with.
    """
    main = outputs
    if joined is None:
        value, gradient = partners.compute(loss, outputs, labels, weights, others)
    else:
        named = joined.split(outputs)
        value, gradients = partners.compute(loss, named, labels, weights, others)
        gradient, main = named.join(gradients), next(iter(named.values()))
    score = loss.score
    right = None if score is None else partners.right(score, main, labels, others)
    return value, gradient, right


def open_step(
    model: nn.Module, config: TrainConfig, shape: Shape | None, loss: Loss | None = None
) -> Step:
    """The step of a network as the settings want it.

    Args:
        model: the network.
        config: the settings.
        shape: (C, H, W) of an image; None for a part of a network, whose shards are never cut.
        loss: what is made small; cross-entropy if absent.
    """
    training = config.training
    compute_dtype = compute_dtype_of(training.precision)
    step = Step(
        model,
        seed=training.seed,
        sync_norms=training.batch_norm == "sync",
        compute_dtype=compute_dtype,
        loss=loss,
    )
    if step.lockstep is not None:
        step.micro_batch = MicroBatch(obstacle="--batch-norm sync lets all shards advance together")
    elif shape is not None and config.compute.device == CPU:
        step.micro_batch = choose(step.model, shape, config, compute_dtype or step.state.dtype)
    return step


def channels_last(images: Tensor) -> Tensor:
    """Images in the layout N H W C, in which torch's convolution and pooling are fastest.

    Images of one channel lie the same in both layouts; only their strides tell torch which is
    meant, and `Tensor.contiguous` leaves those alone.
    """
    if images.dim() != 4:
        return images
    out = torch.empty(
        images.shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last
    )
    return out.copy_(images)
