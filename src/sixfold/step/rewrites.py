"""Exact rewrites of a network: the same values and gradients for less work."""

from __future__ import annotations

from torch import nn

from sixfold.native.max_pool import MaxPoolReLU2d


def relu_behind_max_pool(model: nn.Module) -> nn.Module:
    """Exchange ReLU and the max-pool that follows it, in place, in every `nn.Sequential`.

    ReLU then works on a fraction of the elements, and max-pool's backward pass finds its input in
    the layout that it wants. Exact, because max(relu(x)) = relu(max(x)) for every window:

    * ReLU is monotone, so it keeps the maximum where it is. If that is positive, both orders give
      it and send the gradient to the same place, the first of equals.
    * If no value of the window is positive, both give 0, and no gradient passes: in one order
      ReLU stops it behind the pool, in the other in front of it.
    * Padding counts as minus infinity and never wins, in either order.

    A NaN is passed on by both. Neither module has parameters, so no name of a weight changes.

    Args:
        model: the network; only modules that are exactly `nn.ReLU` and `nn.MaxPool2d` (or 1d, 3d)
            are touched, and no sequence that is used in another way than by calling it can tell.

    Returns:
        The same network.

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
    `sixfold.native.max_pool`.

    Args:
        model: the network; only modules that are exactly `nn.MaxPool2d`, and `nn.ReLU` behind one
            in an `nn.Sequential`, are touched.

    Returns:
        The same network.

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
    """Whether somebody watches a module's calls, so that nothing may be done past it."""
    return any(
        getattr(module, name)
        for name in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
        )
    )
