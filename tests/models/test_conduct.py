"""What a user's forward does besides computing is found before anything is started."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.marks import some

from sixfold.core.errors import UserError
from sixfold.models import check
from sixfold.models.config import ModelConfig
from sixfold.models.outside import watched
from sixfold.models.trial import _modes
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Write = Callable[..., Path]

HEAD = """
import dataclasses, functools, itertools, os, random, time
from pathlib import Path
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

STEP, N, CACHE, FIRST = [0], 0, {}, None

@functools.lru_cache
def noise(n):
    return torch.rand(n)

@functools.lru_cache
def ramp(n):
    return torch.arange(n) / n

class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)
    @staticmethod
    def backward(ctx, g):
        return g.clamp(-1e-3, 1e-3)

@dataclasses.dataclass
class Held:
    inner: dict

class Plain:
    def __init__(self, scale):
        self.scale = scale

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(144, 10)
        self.set_up()
    def set_up(self):
        {set_up}
    def before(self, x, memo=[0]):
        {before}
        return x
    def forward(self, x):
        return self.fc(F.relu(self.conv(self.before(x))).flatten(1))
"""

STATE = {
    "a counter": ("self.calls = 0", "self.calls += 1", "changes 'calls'"),
    "an object": ("self.s = Held({'a': [{'b': 1}]})", "self.s.inner['a'][0]['b'] += 1", "['b']'"),
    "a global list": ("pass", "STEP[0] += 1", "changes 'mynet.STEP[0]'"),
    "a global": ("pass", "global N; N += 1", "changes 'mynet.N'"),
    "a class": ("type(self).n = 0", "type(self).n += 1", "changes 'Net.n'"),
    "a default": ("pass", "memo[0] += 1", "(default)"),
    "statistics": (
        "self.mean = torch.zeros(3)",
        "self.mean = 0.9 * self.mean + 0.1 * x.mean((0, 2, 3)).detach()",
        "changes 'mean'",
    ),
    "a hidden norm": ("self.norms = [nn.BatchNorm2d(3)]", "x = self.norms[0](x)", "'norms[0]."),
    "an iterator": ("self.it = itertools.cycle([1, 1, 2])", "next(self.it)", "changes 'it"),
    "a generator": ("self.it = (i for i in range(10**9))", "next(self.it)", "changes 'it"),
    "NumPy's": ("self.g = np.random.default_rng(0)", "x = x + self.g.random()", "changes 'g'"),
    "torch's": ("self.g = torch.Generator()", "torch.rand(1, generator=self.g)", "changes 'g'"),
    "in evaluation": ("self.n = 0", "self.n += not self.training", "changes 'n'"),
    "the first images": (
        "self.m = None",
        "self.m = x.mean() if self.m is None else self.m; x = x - self.m",
        "keeps 'm' of the first images",
    ),
    "what was before": (
        "self.h = None",
        "h = self.h; self.h = x.detach(); x = x if h is None else x + h.mean()",
        "run again with the same images, gives other values",
    ),
    "noise kept by a function": ("pass", "x = x + noise(8)", "keeps 'mynet.noise' of the first"),
    "noise kept in a global": (
        "pass",
        "x = x + CACHE.setdefault('n', torch.rand(8))",
        "keeps 'mynet.CACHE' of the first images",
    ),
    "the first weights": (
        "self.m = None",
        "self.m = self.fc.weight.detach().mean() if self.m is None else self.m; x = x + self.m",
        "keeps 'm' of the first images or weights",
    ),
    "the first images in a global": (
        "pass",
        "global FIRST; FIRST = x.mean() if FIRST is None else FIRST; x = x - FIRST",
        "keeps 'mynet.FIRST' of the first images",
    ),
    "the first images in a class": (
        "pass",
        "Net.m = getattr(Net, 'm', x.mean()); x = x - Net.m",
        "keeps 'Net.m' of the first images",
    ),
    "a backward that counts": (
        "self.n = 0; self.fc.register_full_backward_hook(self.bump)",
        "return x\n    def bump(self, *_):\n        self.n += 1; x = None",
        "backward changes 'n'",
    ),
    "a hook that counts": (
        "self.n = 0; self.conv.weight.register_hook(self.bump)",
        "return x\n    def bump(self, g):\n        self.n += 1; x = None",
        "backward changes 'n'",
    ),
    "the clock": ("self.t = time.time()", "x = x * (time.time() < self.t + 999)", "time.time (my"),
    "entropy": ("pass", "x = x * (1 + os.urandom(1)[0] // 256)", "calls os.urandom (mynet.py"),
    "a new generator": ("pass", "np.random.default_rng()", "calls os.urandom (mynet.py"),
    "a new state": ("self.s = None", "s = self.s; np.random.RandomState(s)", "calls os.urandom"),
    "Python's": ("pass", "x = x * (random.Random().random() < 2)", "calls os.urandom (mynet.py"),
    "a new seed": ("pass", "random.seed()", "calls os.urandom (mynet.py"),
    "a file": ("pass", "open(__file__).close()", "calls open (mynet.py line"),
    "the date": ("pass", "time.strftime('%H')", "calls time.strftime (mynet.py line"),
    "the host": ("pass", "os.uname()", "calls os.uname (mynet.py line"),
    "the hash of a text": ("pass", "x = x * (hash('scale') % 7)", "its output is another in each"),
    "the hash of a tuple": ("pass", "x = x * (hash(('a', 1)) % 2 + 1)", "its output is another"),
    "where an object lies": ("self.o = object()", "x = x + id(self.o) % 1000", "is another in"),
    "an order of addresses": (
        "pass",
        "a, b = sorted([self.conv, self.fc], key=id)\n        x = x * (1 + (a is self.fc))",
        "its output is another in each process",
    ),
    "a set of layers": (
        "pass",
        "x = x * (1 + ([*{self.conv, self.fc}][0] is self.fc))",
        "its output is another in each process",
    ),
    "a set of objects": (
        "self.s = frozenset([Plain(1), Plain(2)])",
        "x = x * next(iter(self.s)).scale",
        "its output is another in each process",
    ),
    "a set of tensors": (
        "pass",
        "first, *_ = {x * 2, x * 3}; x = first",
        "its output is another in each process",
    ),
    "weights drawn in the order of a set": (
        "[nn.init.normal_(m.weight) for m in set([self.conv, self.fc])]",
        "pass",
        "its 'conv.weight' is another in each process",
    ),
    "the cores": ("pass", "torch.get_num_threads()", "calls torch.get_num_threads (mynet.py"),
}
"""What is set up, what the forward does, and what is said of it."""

BROKEN = {
    "other memory": (
        "pass",
        "self.fc.weight.data = torch.renorm(self.fc.weight.data, 2, 0, 1e9)",
        "changes the parameter 'fc.weight'",
    ),
    "in place": ("pass", "self.fc.weight.data.clamp_(-0.01, 0.01)", "the parameter 'fc.weight'"),
    "to what it was": ("pass", "self.fc.weight.data.clamp_(-99, 99)", "parameter 'fc.weight'"),
    "several, to what they were": (
        "pass",
        "torch._foreach_clamp_max_([p.data for p in self.parameters()], 99.0)",
        "changes the parameter 'conv.weight'",
    ),
    "what is trained": (
        "pass",
        "self.conv.weight.requires_grad_(False)",
        "changes requires_grad of the parameter 'conv.weight'",
    ),
    "nothing to learn": (
        "self.fc.register_forward_hook(lambda m, i, o: o.detach())",
        "pass",
        "output depends on none of its parameters",
    ),
    "a clipped gradient": (
        "self.conv.register_forward_hook(lambda m, i, o: Clipped.apply(o))",
        "pass",
        "its backward is not linear",
    ),
    "a hook that clips": (
        "self.fc.weight.register_hook(lambda g: g.clamp(-1e-3, 1e-3))",
        "pass",
        "hook of its parameter 'fc.weight' is not linear",
    ),
    "a hook that takes the largest": (
        "self.fc.weight.register_hook(lambda g: g * (g.abs() == g.abs().max()))",
        "pass",
        "hook of its parameter 'fc.weight' is not linear",
    ),
    "a hook that waits": (
        "self.fc.weight.register_post_accumulate_grad_hook(lambda p: None)",
        "pass",
        "would never be called",
    ),
    "another parameter": (
        "pass",
        "self.fc.weight = nn.Parameter(self.fc.weight.detach())",
        "changes the parameter 'fc.weight'",
    ),
    "a count of images": (
        "self.register_buffer('seen', torch.zeros((), dtype=torch.long))",
        "self.seen += x.size(0) if self.training else 0",
        "adds to the buffer 'seen' for every image",
    ),
    "a sum": (
        "self.register_buffer('total', torch.zeros(3))",
        "self.total = self.total + x.detach().sum((0, 2, 3)) * self.training",
        "adds to the buffer 'total'",
    ),
    "a sum that fades": (
        "self.register_buffer('total', torch.ones(3))",
        "self.total.lerp_(x.detach().sum((0, 2, 3)), 0.1) if self.training else 0",
        "adds to the buffer 'total'",
    ),
    "whole numbers drawn": (
        "self.register_buffer('order', torch.arange(8))",
        "self.order.copy_(torch.randperm(8)) if self.training else 0; x = x[..., self.order]",
        "the whole numbers of the buffer 'order' by what images or random numbers say",
    ),
    "a buffer that is not saved": (
        "self.register_buffer('mean', torch.zeros(3), persistent=False)",
        "self.mean.lerp_(x.detach().mean((0, 2, 3)), 0.1)",
        "changes the buffer 'mean', which saved weights lack",
    ),
    "a view of weights": (
        "self.first = self.fc.weight[:3]",
        "x = x + self.first.mean()",
        "'first' looks into the memory of 'fc.weight'",
    ),
    "an array of weights": (
        "self.held = {'w': self.fc.weight.detach().numpy()[::-2]}",
        "x = x + float(self.held['w'].mean())",
        "looks into the memory of 'fc.weight'",
    ),
    "a view of a buffer": (
        "self.register_buffer('n', torch.zeros(4)); self.first = self.n[:1]",
        "self.n += 1; x = x + self.first",
        "'first' looks into the memory of 'n'",
    ),
    "weights tied by .data": (
        "self.twin = nn.Conv2d(3, 4, 3); self.twin.weight.data = self.conv.weight.data",
        "x = x + self.twin(x).mean()",
        "'conv.weight' and 'twin.weight' lie in the same memory",
    ),
    "gradients for everybody": (
        "pass",
        "torch.set_grad_enabled(False); x = x * 2; torch.set_grad_enabled(True)",
        "leaves torch.set_grad_enabled changed",
    ),
    "threads": ("pass", "torch.set_num_threads(3)", "leaves torch.set_num_threads changed"),
    "precision of products": (
        "pass",
        "torch.set_float32_matmul_precision('medium')",
        "leaves torch.set_float32_matmul_precision changed",
    ),
    "denormals": ("pass", "torch.set_flush_denormal(True)", "leaves torch.set_flush_denormal"),
    "the library": (
        "pass",
        "torch.backends.mkldnn.enabled = False",
        "leaves torch.backends.mkldnn",
    ),
    "autocast": (
        "pass",
        "torch.autocast('cpu', enabled=True).__enter__()",
        "leaves torch.autocast changed",
    ),
    "a buffer that grows": (
        "self.register_buffer('bank', torch.zeros(1, 3))",
        "self.bank = torch.cat([self.bank, x.mean((0, 2, 3))[None]])",
        "gives the buffer 'bank' another shape",
    ),
    "a late buffer": ("pass", "self.register_buffer('late', x.mean())", "registers 'late'"),
    "a complex parameter": (
        "self.z = nn.Parameter(torch.ones(8, dtype=torch.complex64))",
        "x = (x * self.z).real",
        "its parameter 'z' is complex",
    ),
    "a complex buffer": (
        "self.register_buffer('z', torch.zeros(2, dtype=torch.complex64))",
        "self.z += 1j",
        "'z', which is complex",
    ),
}

FINE = {
    "drawn by Python and NumPy": ("pass", "x = x * (random.random() + np.random.rand())"),
    "drawn by generators with a seed": (
        "self.seed = 3",
        "x = x + np.random.RandomState(3).rand() + np.random.default_rng(3).random()\n"
        "        seed = self.seed\n"
        "        x = x + random.Random(3).random() + np.random.RandomState(\n"
        "            seed=seed).rand() + np.random.RandomState(self.seed + 1).rand()",
    ),
    "drawn by torch": ("pass", "x = F.dropout(x, 0.5)"),
    "images in place": ("pass", "x.mul_(1.5); x -= 0.5"),
    "a moving average": (
        "self.register_buffer('mean', torch.zeros(3))",
        "self.mean = 0.9 * self.mean + 0.1 * x.mean((0, 2, 3)); x = x - self.mean.view(3, 1, 1)",
    ),
    "a count of batches": (
        "self.register_buffer('n', torch.zeros((), dtype=torch.long).expand(2))",
        "self.n = self.n + 1",
    ),
    "a mean of sums": (
        "self.register_buffer('mean', torch.zeros(3))",
        "self.mean += x.detach().mean((0, 2, 3)) if self.training else 0",
    ),
    "expanded": (
        "self.register_buffer('ids', torch.arange(8).expand(3, 8))",
        "x = x + self.ids[:, None]",
    ),
    "complex": (
        "self.register_buffer('z', torch.polar(torch.ones(8), torch.arange(8.0)))",
        "x = (x * self.z).real",
    ),
    "what is only looked at later": ("self.maps = []", "self.maps = [x]; self.shape = x.shape"),
    "a cache": (
        "self.known = {}",
        "x = x * self.known.setdefault(x.shape[2:], torch.full(x.shape[2:], 2.0))",
    ),
    "a sparse gradient": (
        "self.e = nn.Embedding(2, 1, sparse=True)",
        "x = x + self.e((x > 0).long())[..., 0]",
    ),
    "one output in a dictionary": (
        "self.register_forward_hook(lambda m, i, o: {'logits': o})",
        "pass",
    ),
    "weights side by side": (
        "w = torch.rand(3, 2); self.a, self.b = nn.Parameter(w[:, 0]), nn.Parameter(w[:, 1])",
        "x = x * self.a.view(3, 1, 1) + self.b.view(3, 1, 1)",
    ),
    "the lowest number": (
        "self.register_buffer('mask', torch.full((8, 8), torch.finfo(torch.float32).min).triu(1))",
        "x = (x + self.mask).softmax(-1)",
    ),
    "a gradient in the forward": (
        "pass",
        "with torch.enable_grad():\n            z = x.detach().requires_grad_()\n"
        "            x = x + torch.autograd.grad((z**3).sum(), z)[0]",
    ),
    "a constant kept by a function": ("pass", "x = x * ramp(8)"),
    "a mask on a gradient": (
        "self.fc.weight.register_hook(lambda g: g * (torch.arange(144) % 2))",
        "pass",
    ),
    "looked up by id, hash and in sets": (
        "self.by = {id(m): n for n, m in enumerate(self.modules(), 1)}; "
        "self.group, self.scale = {self.conv, Plain(1)}, {self.conv: 2.0, 'a': 3.0}",
        "seen = {hash('a'): 1, hash((1, 2)): 2}\n"
        "        x = x * self.by[id(self.fc)] * (self.conv in self.group) * self.scale[self.conv]\n"
        "        x = x * seen[hash('a')] * (hash(3) + hash((1, 2)) % 5) * len({self.conv, 1})",
    ),
    "settings": (
        "self.calls, self.s = 3, Held({'a': 1})",
        "x = x * self.calls * self.s.inner['a']",
    ),
}


def put(write: Write, set_up: str, before: str) -> ModelConfig:
    code = HEAD.replace("{set_up}", set_up).replace("{before}", before)
    write("mynet.py", code)
    return ModelConfig(model="mynet:Net")


@pytest.mark.parametrize("case", [*STATE, *BROKEN])
def test_state_outside_of_weights_and_buffers_is_refused(case: str, write: Write) -> None:
    set_up, before, said = {**STATE, **BROKEN}[case]
    config = put(write, set_up, before)
    modes = _modes()
    (problem,) = check(config, shape=(3, 8, 8), classes=10)
    assert _modes() == modes
    assert said in problem
    assert "\n" not in problem
    noted: list[str] = []
    left = check(config, shape=(3, 8, 8), classes=10, tell=noted.append)
    as_note = [problem.removesuffix(", or train with --deterministic false")]
    assert noted == (as_note if case in STATE else [])
    assert left == ([] if case in STATE else [problem])


@pytest.mark.parametrize("case", some(FINE, 3))
def test_what_each_shard_can_do_by_itself_has_the_same_bits_on_any_workers(
    case: str, write: Write, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = put(write, *FINE[case])
    found = set()
    for workers in (1, 3):
        out = str(tmp_path / f"run-{workers}")
        settings = configure(
            data="synthetic:120x3x8x8",
            model=config.model,
            out=out,
            workers=workers,
            steps=3,
            evaluate_every=0.5,
        )
        result = train(settings)
        found.add((result["weights_sha256"], result["test_loss"]))
    assert len(found) == 1


def test_a_counter_moves_where_the_result_need_not_be_exact(
    write: Write, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    file = tmp_path / "calls"
    config = put(write, "self.s = Held({'n': 0})", "self.s.inner['n'] += 1; self.note()")
    code = (tmp_path / "mynet.py").read_text()
    note = f"    def note(self): Path({str(file)!r}).write_text(str(self.s.inner['n']))\n"
    (tmp_path / "mynet.py").write_text(code + note)
    settings = {"model": config.model, "out": str(tmp_path / "run"), "steps": 3}
    with pytest.raises(UserError, match="register_buffer, or train with --deterministic false"):
        train(configure(**settings))
    train(configure(**settings, deterministic=False))
    assert int(file.read_text()) >= 3


def test_what_the_garbage_collector_has_others_do_is_not_the_forwards_doing() -> None:
    def timed(_: str, __: object) -> None:
        time.perf_counter()

    gc.callbacks.append(timed)
    try:
        with watched() as found:
            gc.collect()
            assert found == []
            time.perf_counter()
    finally:
        gc.callbacks.remove(timed)
    assert len(found) == 1
