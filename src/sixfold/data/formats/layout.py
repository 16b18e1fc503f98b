"""Which folders of a set are its parts, and which are classes."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sixfold.core.errors import UserError
from sixfold.data import paths
from sixfold.data.file_tree import Tree

ROLES = {
    "train": ("train", "training", "trn", "trainval"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
    "validation": ("val", "valid", "validation", "dev"),
}
"""Words for each part, the usual ones first. The validation part is taken for the test part where
there is none with labels."""

_FILLERS = frozenset(
    {"set", "sets", "data", "dataset", "part", "split", "folder", "dir", "sample", "samples", "seg"}
    | {"image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos"}
    | {"jpg", "jpeg", "png", "jpegimages"}
)
"""Words that may stand beside them: ``train_images``, ``test_set``, ``seg_train``."""

_ANNOTATIONS = frozenset(
    {"label", "labels", "mask", "masks", "annotation", "annotations", "trimaps", "segmentation"}
    | {"groundtruth", "ground", "truth", "gt"}
)
"""Words for what is drawn or written about pictures."""

_ROLE_OF = {word: role for role, words in ROLES.items() for word in words}
_GLUED = re.compile(
    rf"^({'|'.join(sorted(_ROLE_OF, key=len, reverse=True))})({'|'.join(sorted(_FILLERS))})$"
)


@dataclass(frozen=True)
class Layout:
    """Where the parts are."""

    # folder of "train" and, if there are some with labels, of "test" and "validation"
    prefixes: dict[str, str]
    split: str  # how the parts are told apart, for people
    # folders of a test or validation part without any of the classes
    unlabelled: tuple[str, ...] = ()


def role_of(name: str, shared: frozenset[str] = frozenset()) -> str | None:
    """The part that a folder's name speaks of.

    >>> [role_of(n) for n in ("Training", "test_set", "valImages", "train_val", "train_station")]
    ['train', 'test', 'validation', 'train', None]
    """
    found = {_ROLE_OF[word] for word in _words(name) if word in _ROLE_OF}
    if found == {"train", "validation"}:  # both in one folder
        found = {"train"}
    rest = _words(name) - _ROLE_OF.keys() - _FILLERS - shared
    return found.pop() if len(found) == 1 and not rest else None


def _words(name: str) -> set[str]:
    """``trainImages-2`` as train, images."""
    apart = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    glued = [_GLUED.fullmatch(word.lower()) or word.lower() for word in apart]
    return {part for word in glued for part in ([word] if isinstance(word, str) else word.groups())}


def enter(tree: Tree) -> Tree:
    """The tree inside folders that hold nothing but one other folder."""
    while len(top := tree.top()) == 1:
        inner = tree.below(top[0])
        # A set may lie in a folder that is called like a part of one.
        is_part = role_of(top[0]) == "train" and "train" not in map(role_of, inner.top())
        if is_part or not inner.top():
            break
        tree = inner
    return tree


def find_parts(tree: Tree) -> Layout:
    """Tell the parts of a set from its classes."""
    roles = _roles(tree)
    train = next((name for name in roles["train"] if tree.below(name).top()), None)
    others = [*roles["test"], *roles["validation"]]
    if train is None:
        if roles["train"] and (others or len(tree.top()) == 1):
            raise UserError(
                f"{tree.path}: {', '.join([*roles['train'], *others])}: no folders of classes in "
                "them: expected train/<class>/* with test/<class>/*, or <class>/* (pictures "
                "without labels, to be predicted only, are images:PATH)"
            )
        if paired := _paired(tree.top()):
            raise UserError(
                f"{tree.path}: {', '.join(paired)} differ in the part that they name, so they are "
                "no classes: expected train/<class>/* with test/<class>/*"
            )
        _refuse_pictures_and_masks(tree, "")
        _refuse_test_beside_classes(tree, roles["test"])
        return Layout({"train": ""}, "80/20, stratified by class")
    prefix = _inside(tree, train)
    _refuse_pictures_and_masks(tree, prefix)
    classes = set(tree.below(prefix).top())
    unlabelled: list[str] = []
    found = {
        name: inner
        for name in others
        if classes & set(tree.below(inner := _inside(tree, name)).top())
    }
    unlabelled = [name for name in others if name not in found]
    if found:
        test, *more = found
        prefixes, split = {"train": prefix, "test": found[test]}, f"folders {train}, {test}"
        own = next((name for name in more if name in roles["validation"]), None)
        if own is not None and test in roles["test"]:
            prefixes["validation"] = found[own]
            split += f"; {own} is the validation part"
        return Layout(prefixes, split)
    if unlabelled:
        split = f"folder {train}; {', '.join(unlabelled)} without folders of its classes"
        return Layout({"train": prefix}, split, tuple(unlabelled))
    return Layout({"train": prefix}, f"80/20 of folder {train}, stratified by class")


def _refuse_pictures_and_masks(tree: Tree, prefix: str) -> None:
    """Refuse folders side by side whose names say that they are no classes."""
    names = tree.below(prefix).top()
    annotations, pictures = [], []
    for words, name in zip(map(_words, names), names, strict=True):
        if words and words <= _FILLERS:
            pictures.append(name)
        elif words & _ANNOTATIONS and words <= _ANNOTATIONS | _FILLERS:
            annotations.append(name)
    if pictures and annotations:
        raise UserError(
            f"{paths.join(tree.path, prefix)}: "
            f"{_some(sorted([*pictures, *annotations]))} are no classes but pictures and what "
            "belongs to them: expected <class>/*, or the path of a folder further down that holds "
            "these (pictures with Pascal VOC's XML files are cells:PATH, pictures without labels "
            "images:PATH)"
        )


def _refuse_test_beside_classes(tree: Tree, tests: Sequence[str]) -> None:
    names = tree.top()
    if tests and len(names) > len(tests) + 1:
        raise UserError(
            f"{tree.path}: {tests[0]} lies beside folders of classes "
            f"({_some([name for name in names if name not in tests])}): move these into a folder "
            f"train, or {tests[0]} elsewhere; if it is a class too, give it another name"
        )


def _paired(names: Sequence[str]) -> list[str]:
    """Two folders of one name but for its part, such as ``train_cats`` and ``test_cats``."""
    first: dict[frozenset[str], tuple[str, set[str]]] = {}
    for name in names:
        words = _words(name)
        said = {_ROLE_OF[word] for word in words & _ROLE_OF.keys()}
        other, roles = first.setdefault(frozenset(words - _ROLE_OF.keys() - _FILLERS), (name, said))
        if len(said) == len(roles) == 1 and said != roles and "train" in said | roles:
            return [other, name]
    return []


def _roles(tree: Tree) -> dict[str, list[str]]:
    """Folders for each part, those with the most usual names first."""
    found = defaultdict(list)
    speaking = [name for name in tree.top() if _words(name) & _ROLE_OF.keys()]
    shared = frozenset.intersection(*map(frozenset, map(_words, speaking))) if speaking else None
    for name in tree.top():
        role = role_of(name, shared if shared and len(speaking) > 1 else frozenset())
        if role is not None:
            found[role].append(name)
    usual = {word: place for place, word in enumerate(_ROLE_OF)}
    for names in found.values():
        names.sort(key=lambda name: (usual.get(name.lower(), len(usual)), name))
    return found


def _inside(tree: Tree, part: str) -> str:
    """The folder of a part, or the one within it around all its classes: ``train/train``."""
    prefix = part
    while True:
        top = tree.below(prefix).top()
        if len(top) != 1 or not tree.below(f"{prefix}/{top[0]}").top():
            return prefix
        if role_of(top[0]) != role_of(part) and not _words(top[0]) <= _FILLERS:
            return prefix
        prefix = f"{prefix}/{top[0]}"


def nesting_problems(tree: Tree, prefix: str) -> list[str]:
    """Why the folders of a part cannot be its classes, if what lies in them shows that."""
    part = tree.below(prefix)
    own = {name.split("/")[0] for name in part.files if name.count("/") == 1}
    inside: dict[str, set[str]] = defaultdict(set)
    for name in part.files:
        if name.count("/") > 1:
            inside[name.split("/")[0]].add(name.split("/")[1])
    sets = [name for name in part.top() if {role_of(n) for n in inside[name]} >= {"train"}]
    if len(sets) == len(part.top()) > 1:
        return [
            f"{part.path}: each class has parts of its own ({_some(sorted(inside[sets[0]]))} in "
            f"{sets[0]}): expected them the other way round, train/<class>/* with test/<class>/*"
        ]
    if sets:
        return [
            f"{paths.join(part.path, sets[0])}: holds parts ({_some(sorted(inside[sets[0]]))}), so "
            f"it is a set and no class: give folder:{paths.join(part.path, sets[0])}"
        ]
    nested = [inside[name] for name in part.top()]
    if own or not all(nested):
        return []
    first = part.top()[0]
    if all(names == nested[0] for names in nested):
        if len(nested[0]) == 1 and _words(within := next(iter(nested[0]))) <= _FILLERS:
            # <class>/images/*, unless that is <set>/images/<class>/*
            deeper = [part.below(f"{name}/{within}") for name in part.top()]
            nested = [set() if _holds_files(tree) else set(tree.top()) for tree in deeper]
            if len(nested[0]) < 2 or any(names != nested[0] for names in nested):
                return []
        return [
            f"{part.path}: {_some(part.top())} hold no pictures themselves, only the same folders "
            f"({_some(sorted(nested[0]))}), so they are no classes: if they are parts, name them "
            f"train and test; else give one of them, such as folder:{paths.join(part.path, first)}"
        ]
    deep = sorted(f"{name}/{inner}" for name in part.top() for inner in inside[name])
    return [
        f"{part.path}: the pictures lie one level deeper than folders of classes ({_some(deep)}): "
        f"move them into the folders of their classes, or give one set, such as "
        f"folder:{paths.join(part.path, first)}"
    ]


def _holds_files(tree: Tree) -> bool:
    return any("/" not in name for name in tree.files)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
