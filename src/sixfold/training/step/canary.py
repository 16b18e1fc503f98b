"""The canary: what a shard of made-up images amounts to, as a hash.

It is computed by the very step that trains, with this network's layers at their first weights and
in shards of the same shape, precision and memory format. So ranks whose canaries are the same
compute alike in fact, whatever is known of their processors; `sixfold.training.step.arithmetic`
says why others may not.
"""

from hashlib import blake2b

from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Buffer
from sixfold.distributed.process_group.ambient import restore_randomness, save_randomness
from sixfold.training.step.batches import BatchPlan
from sixfold.training.step.step import Step

DIGEST_BYTES = 8


def canary(step: Step, plan: BatchPlan) -> str:
    """The hash of one shard's contribution; weights, buffers and generators stay as they are.

    Args:
        step: before its first step of training.
        plan: the batches of the run, of which the largest shard of the first step is the model. A
            shard that is cut into micro-batches is as large as one of these: every piece has its
            kernels.
    """
    shard = plan.made_up_shard(step.micro_batch.images)
    randomness, draw = save_randomness(), step.draw
    before, mode = (draw.step, draw.shard), step.model.training
    try:
        ((_, payload),) = step.partials(0, [shard], _of_one_shard)
        found = blake2b(payload.tobytes(), digest_size=DIGEST_BYTES).hexdigest()
    finally:
        step.release()
        step.model.train(mode)
        draw.step, draw.shard = before
        restore_randomness(randomness)
    return found


def _of_one_shard(partials: list[tuple[Node, Buffer]], out: Buffer) -> Buffer:
    """The sum within a step over a single shard: itself."""
    ((_, out[:]),) = partials
    return out
