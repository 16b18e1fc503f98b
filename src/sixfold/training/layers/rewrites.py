"""Exact rewrites of a network: the same values and gradients for less work."""

import copy

import torch
from torch import nn

from sixfold.training.native.max_pool import MaxPoolReLU2d


def relu_behind_max_pool(model: nn.Module) -> nn.Module:
    """Exchange ReLU and the max-pool that follows it, in place, in every `nn.Sequential`.

    ReLU then works on a fraction of the elements, and max-pool's backward pass finds its input in
    the layout that it wants. Exact, because max(relu(x)) = relu(max(x)) for every window:

    * ReLU is monotone, so it keeps the maximum where it is. If that is positive, both orders give
      it and send the gradient to the same place, the first of equals.
    * If no value of the window is positive, both give 0, and no gradient passes: in one order
      ReLU stops it behind the pool, in the other in front of it.
    * Padding counts as minus infinity and never wins, in either order.

    A NaN is passed on by both. Neither module has parameters, so no name of a weight changes. Only
    modules that are exactly `nn.ReLU` and `nn.MaxPool2d` (or 1d, 3d) are touched, and no sequence
    that is used in another way than by calling it can tell.

    >>> relu_behind_max_pool(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    Sequential(
      (0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
      (1): ReLU()
    )
    """
    for module in model.modules():
        if type(module) is not nn.Sequential:
            continue
        for place in range(len(module) - 1):
            first, second = module[place], module[place + 1]
            if type(first) is nn.ReLU and _plain_max_pool(second):
                module[place], module[place + 1] = second, first
    return model


def fused_max_pool(model: nn.Module) -> nn.Module:
    """Put `MaxPoolReLU2d` in the place of every max-pool and of the ReLU right behind it.

    Exact to the bit, forward and backward: values are only compared and moved; see
    `sixfold.training.native.max_pool`. Only modules that are exactly `nn.MaxPool2d`, and `nn.ReLU`
    behind one in an `nn.Sequential`, are touched.

    >>> fused_max_pool(nn.Sequential(nn.MaxPool2d(2), nn.ReLU()))[1]
    Identity()
    """
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.MaxPool2d and _plain_max_pool(child):
                follower = _relu_behind(module, name)
                if follower is not None:
                    setattr(module, follower, nn.Identity())
                setattr(module, name, MaxPoolReLU2d(child, relu=follower is not None))
    return model


def fused_in_line(
    layers: list[nn.Module], names: list[tuple[str, ...]]
) -> tuple[list[nn.Module], list[tuple[str, ...]]]:
    """Both rewrites above, for layers that run one behind the other without an `nn.Sequential`.

    So they are found in a forward that is written out, such as `self.pool(F.relu(self.conv(x)))`.
    Each layer takes what the one before gives, and nothing else does. Fewer layers come back, with
    the names of those that each stands for.

    >>> fused_in_line([nn.ReLU(), nn.MaxPool2d(2)], [("relu",), ("pool",)])[1]
    [('relu', 'pool')]
    """
    found: list[nn.Module] = []
    called: list[tuple[str, ...]] = []
    for layer, name in zip(layers, names, strict=True):
        if type(layer) is nn.MaxPool2d and _plain_max_pool(layer):
            layer = MaxPoolReLU2d(layer, relu=False)
        before = found[-1] if found else None
        pools = [part for part in (before, layer) if type(part) is MaxPoolReLU2d]
        relus = [part for part in (before, layer) if type(part) is nn.ReLU]
        if len(pools) == len(relus) == 1 and not any(map(has_hooks, [*pools, *relus])):
            found[-1] = MaxPoolReLU2d(pools[0], relu=True)
            called[-1] += name
        else:
            found.append(layer)
            called.append(name)
    return found, called


def folded_batch_norm(model: nn.Module) -> nn.Module:
    """Fold every batch-norm into the convolution before it, in place; for inference only.

    A norm that does not train is linear: with s = weight / sqrt(var + eps) and the running mean m,

        s (x * w + b - m) + bias  =  x * (s w)  +  (s (b - m) + bias),

    so the convolution with weights s w and that bias gives the same, up to rounding, and the norm
    becomes the identity. The new weights are computed in float64. Only modules that are exactly
    `nn.Conv2d` and `nn.BatchNorm2d`, one behind the other in an `nn.Sequential`, are touched; a
    ValueError if such a norm is training: it would use other statistics.

    >>> folded_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval())[1]
    Identity()
    """
    for module in model.modules():
        if type(module) is not nn.Sequential:
            continue
        for place in range(len(module) - 1):
            conv, norm = module[place], module[place + 1]
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and _foldable(conv, norm):
                module[place], module[place + 1] = _folded(conv, norm), nn.Identity()
    return model


def _foldable(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    return norm.track_running_stats and not has_hooks(conv) and not has_hooks(norm)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    if norm.training:
        raise ValueError("batch-norm is folded for inference only: call model.eval() first")
    assert norm.running_var is not None
    assert norm.running_mean is not None
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            scale *= norm.weight.double()
        bias = -norm.running_mean.double() * scale
        if conv.bias is not None:
            bias += conv.bias.double() * scale
        if norm.affine:
            bias += norm.bias.double()
        folded = copy.deepcopy(conv)
        folded.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
        folded.bias = nn.Parameter(bias.to(conv.weight.dtype))
    return folded


def _relu_behind(module: nn.Module, name: str) -> str | None:
    """The name of a plain ReLU right behind a child of a sequence."""
    if type(module) is not nn.Sequential:
        return None
    names = list(module._modules)
    following = names[names.index(name) + 1 :][:1]
    for candidate in following:
        child = module._modules[candidate]
        if type(child) is nn.ReLU and not has_hooks(child):
            return candidate
    return None


def _plain_max_pool(module: nn.Module) -> bool:
    if type(module) not in (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d):
        return False
    return not module.return_indices and not has_hooks(module)


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches a module's calls or its parameters' gradients.

    Then nothing may be done past it.
    """
    watched = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in watched) or any(
        parameter is not None and parameter._backward_hooks
        for parameter in module._parameters.values()
    )
