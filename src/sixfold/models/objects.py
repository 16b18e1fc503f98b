"""Objects of the user's as settings: a class, function, network or callable becomes a name.

    name = pack(Net, run / "objects", "model")    # "nets:Net", or ".../objects/model-1f0c.pkl:Net"
    open_object(name)                              # the object, in any process

What ranks can import is named as on the command line. Anything else (of `__main__` or a notebook,
nested, a lambda, an instance) is packed into a file, with the code that it needs by value. A name
of a file has the hash of the object's content (`sixfold.models.identity`): the same cell of a
notebook, run again, gives the same name, and an edited one another.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import cloudpickle
from torch import nn

from sixfold.core.errors import UserError
from sixfold.models.identity import Identity, is_importable
from sixfold.models.importing import find_object, source_file
from sixfold.models.packed import PackedFile, is_own_file, is_packed, write_packed
from sixfold.models.user_traceback import one_line

__all__ = ["describe", "open_object", "pack"]


def pack(thing: Any, folder: Path, what: str) -> str:
    """The name by which every rank can open an object (class, function, callable or network).

    Where it needs a file, that is written to `folder`, which all ranks reach, its name begun by the
    option `what`. It holds a copy: later changes alter nothing. A `UserError` if it cannot be
    packed.
    """
    name, identity = describe(thing, what)
    if not is_packed(name):
        return name
    file, _, title = name.rpartition(":")
    path = folder.absolute() / Path(file).name
    if not path.is_file() or not is_own_file(path):
        assert identity is not None, "what is packed has been hashed"
        header = PackedFile(
            path=path,
            name=title,
            identity=identity.digest,
            is_network=isinstance(thing, nn.Module),
            modules={module: _root(module) for module in sorted(identity.modules)},
        )
        write_packed(header, _pickled(thing, title, what))
    return f"{path}:{title}"


def describe(thing: Any, what: str) -> tuple[str, Identity | None]:
    """The name that `pack` gives, of a file without its folder; and the hash, if it has one."""
    if name := _imported_name(thing):
        return name, None
    identity = Identity(thing)
    return f"{what}-{identity.digest[:12]}.pkl:{title_of(thing)}", identity


def open_object(name: str, option: str = "--model") -> Any:
    """What `package.module:name`, `path/file.py:name` or a packed object's name means, made anew.

    A `UserError`, with the option that was given it, if there is none or opening it fails.
    """
    return find_object(name, option)


def title_of(thing: Any) -> str:
    """What a message calls an object.

    >>> title_of(len), title_of(nn.ReLU()), title_of(lambda: 0)
    ('len', 'ReLU', 'function')
    """
    name = getattr(thing, "__name__", None) or type(thing).__name__
    return str(name) if str(name).isidentifier() else "function"


def _imported_name(thing: Any) -> str:
    """`package.module:name`, or `path/file.py:name`, if any rank finds the object by it."""
    if not is_importable(thing):
        return ""
    module, name = thing.__module__, thing.__qualname__
    file = getattr(sys.modules[module], "__file__", None)
    names = [f"{module}:{name}"]
    if "." not in module and file and file.endswith(".py"):
        names.append(f"{Path(file).absolute()}:{name}")
    for each in names:
        try:
            source, found = source_file(each), find_object(each)
        except UserError:
            continue
        # Other folders of this process's search path are not on that of every rank.
        is_near = source is None or source.parent == Path.cwd().resolve()
        if found is thing and (is_near or each != names[0]):
            return each
    return ""


def _root(module: str) -> str:
    """The folder in which the top of a module is found."""
    steps = module.split(".")
    file = Path(str(sys.modules[module].__file__)).absolute()
    depth = len(steps) - (0 if file.stem == "__init__" else 1)
    return str(file.parents[depth])


def _pickled(thing: Any, title: str, what: str) -> bytes:
    if isinstance(thing, nn.Module):
        for name, parameter in thing.named_parameters():
            if parameter._backward_hooks:
                raise UserError(
                    f"{what}: {title}'s parameter '{name}' has a hook, which is lost when the "
                    "network is sent to ranks: give the function that builds it and its hooks"
                )
        tensors = [*thing.parameters(), *thing.buffers()]
        if any(tensor.device.type != "cpu" for tensor in tensors):
            thing = copy.deepcopy(thing).cpu()
    try:
        data: bytes = cloudpickle.dumps(thing)
    except Exception as error:
        raise UserError(
            f"{what}: {title} cannot be sent to ranks: {one_line(error)}; leave what cannot be "
            "pickled (a lock, an open file, a generator) out of it, or make it when it is called"
        ) from error
    return data
