"""The README's tree is the tree."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def listed() -> set[str]:
    """Paths in the README's tree, relative to the checkout."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```tree\n(.*?)```", text, re.DOTALL)
    assert block, "README.md has no ```tree block"
    found: set[str] = set()
    trail: list[str] = []
    for line in block[1].splitlines():
        match = re.match(r"( *)(\S+)  +\S.*$", line)
        assert match, f"one line a file, with what it is: {line!r}"
        depth = len(match[1]) // 2
        trail[depth:] = [match[2].rstrip("/")]
        found.add("/".join(trail))
    return found


def test_every_source_file_is_in_the_tree_and_nothing_else() -> None:
    real = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "src" / "sixfold").rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js", ".c", ".inc")
        and path.name != "__init__.py"
    }
    tree = {path for path in listed() if path.startswith("src/sixfold/")}
    files = {path for path in tree if (ROOT / path).is_file()}
    assert sorted(real - files) == []
    assert sorted(path for path in listed() if not (ROOT / path).exists()) == []
