"""Which of a user's own files a module is made of: itself, and what it uses.

Nothing is run. Imports are followed in the source, from file to file, as far as they lead to files
that are not installed; file names that stand in the source as text, such as that of a table of
widths, count where there is such a file beside it. Where a module imports by names made while it
runs (`importlib`), texts that name modules of the project are followed too.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from sixfold.core.installed import is_installed

_LONGEST_NAME = 255


class ImportWalk:
    """Follows imports from file to file; `directory` is searched for modules before `sys.path`.

    Attributes:
        files: the user's own files that were reached, absolute.
        modules: those of them that are modules, by the names under which they are imported.
        texts: all texts that stand in their source.
        beginnings: how names begin that are put together while a module runs, as `f"parts.{kind}"`.
    """

    def __init__(self, directory: Path) -> None:
        self.files: set[Path] = set()
        self.modules: dict[str, Path] = {}
        self.texts: set[str] = set()
        self.beginnings: set[str] = set()
        self._search = [str(directory), *sys.path]

    def follow(self, module: str) -> None:
        """Take up a module, its packages, and what they use."""
        parts, path = module.split("."), self._search
        for number in range(len(parts)):
            name = ".".join(parts[: number + 1])
            spec = None if number == 0 and _means_another(name) else _spec(name, path)
            if spec is None or not self._take(name, spec):
                return
            if spec.submodule_search_locations is None:
                return
            path = list(spec.submodule_search_locations)

    def add_named(self, text: str, folder: Path) -> None:
        """Take up the file that a text names, if there is one."""
        if "." not in text or len(text.encode("utf-8", "replace")) > _LONGEST_NAME:
            return
        for file in (folder / text, Path(text)):
            if file.is_file() and not is_installed(file):
                self.files.add(file.resolve())
                return

    def read(self, file: Path, package: str) -> None:
        """Follow what a module's source uses; `package` is the one that it is in, or is."""
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            return  # importing it says what is wrong
        texts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        self.texts.update(texts)
        for text in texts:
            self.add_named(text, file.parent)
        for module in _imported(tree, package):
            self.follow(module)
        if _imports_by_name(tree):
            self.beginnings.update(_beginnings(tree))
            for text in texts:
                if all(part.isidentifier() for part in text.strip(".").split(".")):
                    self.follow(f"{package}{text}" if text.startswith(".") else text)

    def _take(self, name: str, spec: ModuleSpec) -> bool:
        """Take up one module; whether it is the user's own, or a folder that may hold such."""
        if not spec.has_location or spec.origin is None:
            return spec.submodule_search_locations is not None
        file = Path(spec.origin).resolve()
        if is_installed(file):
            return False
        if name in self.modules:
            return True
        self.modules[name] = file
        if not file.is_file():  # in a zip file on the search path
            self.files |= {parent for parent in file.parents if parent.is_file()}
            return True
        self.files.add(file)
        if file.suffix == ".py":
            self.read(file, name if spec.submodule_search_locations else name.rpartition(".")[0])
        return True


def _means_another(name: str) -> bool:
    """Whether Python has a library of this name already, which is what it would import."""
    known = getattr(sys.modules.get(name), "__file__", None)
    return name in sys.builtin_module_names or (known is not None and is_installed(Path(known)))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of the modules that a file's import statements may mean."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _imports_by_name(tree: ast.AST) -> bool:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return bool(names & {"import_module", "__import__", "run_path"})


OF_THE_HOST = frozenset(
    {"HOME", "USER", "LOGNAME", "HOSTNAME", "PWD", "PATH", "PYTHONPATH", "SHELL", "TERM", "DISPLAY"}
    | {"TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "DEBUG", "LOGLEVEL"}
    | {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RANK", "LOCAL_RANK"}
    | {"WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_PROCID"}
)
"""Variables that say where a network is built, not what it is: they tell no runs apart and stay."""


def variables_read(file: Path) -> set[str]:
    """Variables of the environment that a source file reads by their names.

    `os.environ["WIDTH"]`, `os.environ.get("WIDTH")`, `os.getenv("WIDTH")`, `"WIDTH" in os.environ`;
    the name may stand in a variable (`NAME = "WIDTH"`). Those of the host are left out.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    found: list[ast.expr] = []
    texts: dict[str, set[str]] = {}  # that variables of the code are given
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (text := _text(node.value)) is not None:
            for target in node.targets:
                texts.setdefault(_last_name(target), set()).add(text)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            found += [node.slice] if _last_name(node.value) == "environ" else []
        elif isinstance(node, ast.Compare) and _last_name(node.comparators[0]) == "environ":
            found.append(node.left)
        elif isinstance(node, ast.Call) and node.args:
            inner = node.func.value if isinstance(node.func, ast.Attribute) else None
            asked = _last_name(node.func)
            if asked == "getenv" or (asked == "get" and _last_name(inner) == "environ"):
                found.append(node.args[0])
    read = {text for one in found if (text := _text(one)) is not None}
    return read.union(*(texts.get(_last_name(one), ()) for one in found)) - OF_THE_HOST


def _text(node: ast.AST) -> str | None:
    constant = node.value if isinstance(node, ast.Constant) else None
    return constant if isinstance(constant, str) else None


def _last_name(node: ast.AST | None) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _beginnings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        first: ast.AST | None = None
        if isinstance(node, ast.JoinedStr) and node.values:
            first = node.values[0]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            first = node.left
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.func.value if node.func.attr == "format" else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value.partition("%")[0].partition("{")[0]


def _spec(name: str, path: list[str]) -> ModuleSpec | None:
    """Where a module is, without importing its packages."""
    try:
        found = PathFinder.find_spec(name, path)
        if found is None and "." not in name:  # a package installed as editable
            found = importlib.util.find_spec(name)
        return found
    except (ImportError, LookupError, ValueError, AttributeError):
        return None
