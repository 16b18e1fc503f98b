"""Links inside an archive: what each of them leads to, without unpacking."""

import posixpath
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from sixfold.core.errors import UserError
from sixfold.data.byte_ranges import Extent

MOST_FILES = 2**24
"""Reached by links: a few links to folders of links can stand for any number of files."""

MOST_HOPS = 40  # From link to link, as in the kernel


def follow_links(
    files: dict[str, Extent],
    folders: set[str],
    left_out: list[tuple[str, str]],
    links: Mapping[str, str],
) -> None:
    """Add the files and folders that links lead to, under the links' own names.

    A link that leads nowhere becomes a file that cannot be read, so that it is reported. `links` is
    from each link's name to what it names, from the root of the archive.
    """
    names, link_names = sorted(files), sorted(links)
    found: dict[str, Extent] = {}

    def expand(name: str, link: str, around: frozenset[str]) -> None:
        real = _real(links[link], links)
        if real in files:
            found[name] = files[real]
            return
        inside = [] if real is None else _below(names, real)
        further = [] if real is None else _below(link_names, real)
        if real is None or not (inside or further or real in folders):
            found[name] = Extent("", missing="a link to nothing in the archive")
        elif real in around or f"{name}/".startswith(f"{real}/" if real else ""):
            left_out.append((name, "a link back to a folder around it"))
        else:
            folders.add(name)
            start = len(real) + 1
            found.update((f"{name}/{file[start:]}", files[file]) for file in inside)
            if len(found) > MOST_FILES:
                raise UserError(f"links in the archive stand for more than {MOST_FILES} files")
            for other in further:
                expand(f"{name}/{other[start:]}", other, around | {real})

    for link in link_names:
        expand(link, link, frozenset())
    files.update(found)


def _real(path: str, links: Mapping[str, str]) -> str | None:
    """A path without links in it; None if it leads out of the archive, or in circles."""
    for _ in range(MOST_HOPS):
        path = posixpath.normpath(path.removeprefix("/")).removeprefix("./")
        if path == "..":
            return None
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            if parts[0] == "..":
                return None
            start = "/".join(parts[:count])
            if start in links:
                path = "/".join([links[start], *parts[count:]])
                break
        else:
            return "" if path == "." else path
    return None


def _below(names: Sequence[str], folder: str) -> Sequence[str]:
    """Those of sorted names that lie in a folder."""
    if not folder:
        return names
    # "0" is the character after "/".
    return names[bisect_left(names, f"{folder}/") : bisect_left(names, f"{folder}0")]
