import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from sixfold.core.errors import UserError
from sixfold.data import byte_ranges, resolve
from sixfold.data.archives import is_archive_name, list_archive
from sixfold.data.byte_ranges import ExtentReader
from sixfold.data.config import DataConfig
from sixfold.data.file_tree import open_tree
from sixfold.data.images import BadImageError

CONTENT = {
    f"train/{'cat' if i % 2 else 'dog'}/{i:03}.bin": bytes([i]) * (700 * i) for i in range(9)
}
KINDS = ("tar", "tar.gz", "tar.xz", "tar.lzma", "tar.bz2", "zip", "stored.zip", "pax.tar")


def write_archive(path: Path) -> Path:
    if path.name.endswith("zip"):
        packing = zipfile.ZIP_STORED if "stored" in path.name else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", packing) as archive:
            for name, data in CONTENT.items():
                archive.writestr(name, data)
        return path
    if path.name.endswith(".lzma"):
        content = write_archive(path.with_name("plain.tar")).read_bytes()
        path.write_bytes(lzma.compress(content, lzma.FORMAT_ALONE))
        return path
    packing_name = path.name.rpartition(".")[2]
    mode = f"w:{packing_name}" if packing_name != "tar" else "w:"
    form = tarfile.PAX_FORMAT if "pax" in path.name else tarfile.GNU_FORMAT
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, data in CONTENT.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mtime = 1.5 if "pax" in path.name else 1
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: write_archive(tmp_path / f"set.{kind}")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_read_without_unpacking(
    archive: Callable[[str], Path], spool: Path, kind: str
) -> None:
    files = list_archive(str(archive(kind)), spool).files
    with ExtentReader() as reader:
        assert {name: reader.read(extent) for name, extent in files.items()} == CONTENT
    assert len(list(spool.iterdir())) == (kind in ("tar.gz", "tar.xz", "tar.lzma", "tar.bz2"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_looks_like_a_folder(archive: Callable[[str], Path], spool: Path, kind: str) -> None:
    tree = open_tree(str(archive(kind)), spool)
    assert tree.top() == ["train"]
    assert tree.below("train").top() == ["cat", "dog"]
    assert list(tree.below("train/cat").files) == [f"{i:03}.bin" for i in (1, 3, 5, 7)]
    assert tree.below("train/cat").read("003.bin") == CONTENT["train/cat/003.bin"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6])
def test_an_incomplete_archive_is_told_so(
    archive: Callable[[str], Path], spool: Path, kind: str, kept: float
) -> None:
    path = archive(kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match=r"damaged or incomplete|neither a folder nor") as error:
        list_archive(str(path), spool)
    assert len(error.value.problems) == 1
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["tar", "tar.xz"])
def test_a_broken_header_is_no_end(archive: Callable[[str], Path], spool: Path, kind: str) -> None:

    plain = bytearray(archive("tar").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        fourth = tar.getmembers()[4].offset
    plain[fourth] ^= 0xFF
    path = spool / f"broken.{kind}"
    path.write_bytes(bytes(plain) if kind == "tar" else lzma.compress(bytes(plain)))
    with pytest.raises(UserError, match=f"broken header at byte {fourth}"):
        list_archive(str(path), spool)


FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = ("a.jpg", "ä/ö.jpg", "d" * 90 + "/" + "x" * 60, "y" * 300 + "/z")


@pytest.mark.parametrize(
    ("form", "name"),
    # The oldest form has no room for long names.
    [(f, n) for f in FORMS for n in NAMES if len(n) < 255 or f != tarfile.USTAR_FORMAT],
)
def test_names_of_any_length_are_read(tmp_path: Path, spool: Path, form: int, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        folder = tarfile.TarInfo("./empty/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for data in (b"first", b"second"):
            member = tarfile.TarInfo(f"{name}.{data.decode()}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    members = list_archive(str(tmp_path / "a.tar"), spool)
    files, folders = members.files, members.folders
    with ExtentReader() as reader:
        found = {name: reader.read(extent) for name, extent in files.items()}
    assert found == {f"{name}.first": b"first", f"{name}.second": b"second"}
    assert folders == {"empty"}


def test_wrong_bytes_in_a_compressed_tar_are_noticed(
    archive: Callable[[str], Path], spool: Path
) -> None:
    path = archive("tar.gz")
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF  # the checksum at its end
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="damaged or incomplete"):
        list_archive(str(path), spool)


@pytest.mark.parametrize("kind", ["zip", "stored.zip"])
def test_wrong_bytes_in_a_zip_are_a_bad_image(
    archive: Callable[[str], Path], spool: Path, kind: str
) -> None:
    path = archive(kind)
    files = list_archive(str(path), spool).files
    extent = files["train/cat/005.bin"]
    data = bytearray(path.read_bytes())
    data[extent.offset + 2] ^= 0x55
    path.write_bytes(bytes(data))
    with ExtentReader() as reader, pytest.raises(BadImageError):
        reader.read(extent)


def test_forged_sizes_ask_for_nothing(archive: Callable[[str], Path], spool: Path) -> None:
    files = list_archive(str(archive("zip")), spool).files
    extent = files["train/cat/005.bin"]
    with ExtentReader() as reader:
        for forged in (extent._replace(unpacked=2**60), extent._replace(size=2**60)):
            with pytest.raises(BadImageError, match="claims to have"):
                reader.read(forged)
        for wrong in (extent._replace(unpacked=5), extent._replace(unpacked=999_999)):
            with pytest.raises(BadImageError, match="another size"):
                reader.read(wrong)
        with pytest.raises(BadImageError, match="cut off after"):
            reader.read(extent._replace(size=1_000_000))


def tar_of(path: Path, members: list[tuple[str, str, bytes]], form: int = FORMS[1]) -> Path:
    """Write a tar of (name, what a link leads to or nothing, content or the link's kind)."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, target, data in members:
            member = tarfile.TarInfo(name)
            if target:
                member.type, member.linkname = data, target
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def contents(path: Path, spool: Path) -> dict[str, bytes | str]:
    """What each file reads as, or why it cannot be read."""
    found: dict[str, bytes | str] = {}
    with ExtentReader() as reader:
        for name, extent in open_tree(str(path), spool).files.items():
            try:
                found[name] = reader.read(extent)
            except BadImageError as error:
                found[name] = error.reason
    return found


@pytest.mark.parametrize("form", FORMS)
def test_links_in_a_tar_stand_for_what_they_lead_to(tmp_path: Path, spool: Path, form: int) -> None:
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    members = [
        ("train/cat/a.jpg", "", b"A"),
        ("train/cat/b.jpg", "train/cat/a.jpg", hard),
        ("train/cat/c.jpg", "b.jpg", soft),
        ("train/dog/d.jpg", "../cat/c.jpg", soft),
        ("test", "train", soft),
        ("train/up", "..", soft),
        ("train/dog/gone.jpg", "/etc/passwd", soft),
        ("train/dog/out.jpg", "../../../x.jpg", soft),
        ("train/round.jpg", "round.jpg", soft),
    ]
    path = tar_of(tmp_path / "a.tar", members, form)
    parts = {f"cat/{n}.jpg": b"A" for n in "abc"} | {"dog/d.jpg": b"A"}
    nowhere = {f"{n}.jpg": "a link to nothing in the archive" for n in ("dog/gone", "dog/out")}
    nowhere["round.jpg"] = nowhere["dog/gone.jpg"]
    everything = {f"{p}/{n}": v for p in ("train", "test") for n, v in (parts | nowhere).items()}
    assert contents(path, spool) == everything
    tree = open_tree(str(path), spool)
    assert set(tree.left_out) == {
        ("train/up", "a link back to a folder around it"),
        ("test/up", "a link back to a folder around it"),
    }
    assert tree.twins["train/dog/d.jpg"] == "train/cat/a.jpg"


def test_of_two_members_with_one_name_the_last_counts_and_the_first_is_told(
    tmp_path: Path, spool: Path
) -> None:
    for links in ([], [("b", "a", tarfile.LNKTYPE)]):  # by either reader
        members = [("a", "", b"old"), *links, ("./a", "", b"new"), (".x/y", "", b"1")]
        path = tar_of(tmp_path / "a.tar", [*members, ("__MACOSX/._a", "", b"2")])
        found = contents(path, spool)
        assert found["a"] == b"new"
        assert found.get("b", b"old") == b"old"
        assert open_tree(str(path), spool).left_out == (
            ("a", "replaced by a later file of this name"),
            (".x/", "hidden"),
            ("__MACOSX/", "hidden"),
        )


def test_a_sparse_member_is_read_in_full(tmp_path: Path, spool: Path) -> None:
    import subprocess

    with (tmp_path / "holes.jpg").open("wb") as file:
        file.seek(300_000)
        file.write(b"end")
    subprocess.run(["tar", "-S", "-cf", "a.tar", "holes.jpg"], cwd=tmp_path, check=True)
    assert contents(tmp_path / "a.tar", spool) == {"holes.jpg": bytes(300_000) + b"end"}


def test_a_zip_with_backslashes_and_links_is_read_as_folders(tmp_path: Path, spool: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("train\\", "train\\cat\\", "train\\cat\\a.jpg"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, b"A" if name.endswith("jpg") else b"")
        link = zipfile.ZipInfo("train/dog/b.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../cat/a.jpg")
    assert contents(tmp_path / "a.zip", spool) == {"train/cat/a.jpg": b"A", "train/dog/b.jpg": b"A"}
    assert open_tree(str(tmp_path / "a.zip"), spool).below("train").top() == ["cat", "dog"]
    # As Python's zipfile unpacks such a file on Linux.
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train\\cat\\a.jpg").write_bytes(b"A")
    assert contents(tmp_path / "set", spool) == {"train/cat/a.jpg": b"A"}


def test_what_begins_like_no_picture_is_not_unpacked(tmp_path: Path, spool: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.jpg", bytes(2**26))
        archive.writestr("huge.jpg", b"\x89PNG\r\n\x1a\n" + bytes(2**28))
        archive.writestr("good.png", b"\x89PNG\r\n\x1a\n" + bytes(2**15))
    files = open_tree(str(tmp_path / "a.zip"), spool).files
    with ExtentReader() as reader:
        tracemalloc.start()
        with pytest.raises(BadImageError, match="not an image"):
            reader.read(files["zeros.jpg"], picture=True)
        with pytest.raises(BadImageError, match="a picture has at most"):
            reader.read(files["huge.jpg"], picture=True)
        assert tracemalloc.get_traced_memory()[1] < 2**23
        tracemalloc.stop()
        assert len(reader.read(files["good.png"], picture=True)) == 2**15 + 8


def test_a_compressed_tar_may_not_fill_the_disk(
    archive: Callable[[str], Path], spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_ranges, "SPARE_BYTES", 2**62)
    with pytest.raises(UserError, match="unpacks to more than the disk of"):
        list_archive(str(archive("tar.xz")), spool)


def test_what_cannot_be_unpacked_is_told(tmp_path: Path, spool: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x" * 100)
    with pytest.raises(UserError, match="unpack the archive yourself"):
        list_archive(str(tmp_path / "a.zip"), spool)
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(600))
    with pytest.raises(UserError, match=r"a 7-Zip archive, neither .*: unpack it first$"):
        list_archive(str(tmp_path / "a.7z"), spool)
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(UserError, match=r"notes.txt: neither a folder nor an archive"):
        list_archive(str(tmp_path / "notes.txt"), spool)


def test_an_archive_behind_a_url_is_copied(archive: Callable[[str], Path], spool: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/archives/set.zip", archive("zip").read_bytes())
    files = list_archive("memory://archives/set.zip", spool).files
    with ExtentReader() as reader:
        assert reader.read(files["train/cat/003.bin"]) == CONTENT["train/cat/003.bin"]


@pytest.mark.parametrize(
    "name", ["/data/train/cat/a.jpg", "../../train/cat/a.jpg", "train//cat/./b/../a.jpg"]
)
@pytest.mark.parametrize("kind", ["ustar", "pax", "zip"])
def test_names_with_roots_dots_and_doubled_slashes_are_read(
    tmp_path: Path, spool: Path, name: str, kind: str
) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"A")
    else:
        form = tarfile.USTAR_FORMAT if kind == "ustar" else tarfile.PAX_FORMAT
        tar_of(path, [(name, "", b"A"), ("é", "", b"B")], form)
    found = contents(path, spool)
    assert found["data/train/cat/a.jpg" if "data" in name else "train/cat/a.jpg"] == b"A"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("link", [False, True])
def test_archives_behind_each_other_are_one(
    tmp_path: Path, spool: Path, form: int, link: bool
) -> None:
    first = tar_of(tmp_path / "a.tar", [("cat/a.jpg", "", b"A")], form).read_bytes()
    more = [("cat/c.jpg", "cat/a.jpg", tarfile.LNKTYPE)] if link else []
    second = tar_of(tmp_path / "b.tar", [("cat/b.jpg", "", b"B"), *more], form).read_bytes()
    (tmp_path / "both.tar").write_bytes(first + second)
    (tmp_path / "both.tgz").write_bytes(gzip.compress(first) + gzip.compress(second))
    expected = {"cat/a.jpg": b"A", "cat/b.jpg": b"B"} | ({"cat/c.jpg": b"A"} if link else {})
    assert contents(tmp_path / "both.tar", spool) == expected
    assert contents(tmp_path / "both.tgz", spool) == expected
    (tmp_path / "junk.tar").write_bytes(first + b"junk" * 300)
    with pytest.raises(UserError, match="damaged or incomplete"):
        contents(tmp_path / "junk.tar", spool)


def test_a_link_and_a_file_of_one_name_replace_each_other(tmp_path: Path, spool: Path) -> None:
    files = [("a", "", b"A"), ("b", "", b"B")]
    link_last = tar_of(tmp_path / "a.tar", [*files, ("a", "b", tarfile.SYMTYPE)])
    link_first = tar_of(tmp_path / "b.tar", [("a", "b", tarfile.SYMTYPE), *files])
    assert contents(link_last, spool) == {"a": b"B", "b": b"B"}
    assert contents(link_first, spool) == {"a": b"A", "b": b"B"}
    for path in (link_last, link_first):
        assert open_tree(str(path), spool).left_out == (
            ("a", "replaced by a later file of this name"),
        )


def test_a_zip_behind_a_program_is_read(archive: Callable[[str], Path], spool: Path) -> None:
    path = archive("zip")
    path.write_bytes(b"MZ" + bytes(700) + path.read_bytes())
    assert contents(path, spool) == CONTENT


@pytest.mark.parametrize(
    "name", ["thumbs.db", "Desktop.ini", "Icon\r", "@eaDir/x.jpg", "__macosx/x"]
)
def test_files_of_operating_systems_are_none(tmp_path: Path, spool: Path, name: str) -> None:
    path = tar_of(tmp_path / "a.tar", [("cat/a.jpg", "", b"A"), (f"cat/{name}", "", b"x")])
    assert contents(path, spool) == {"cat/a.jpg": b"A"}
    ((_, reason),) = open_tree(str(path), spool).left_out
    assert reason == "hidden"


@pytest.mark.parametrize("name", ["set.7z", "train.rar", "set.tar.Z", "set.tar.lz"])
@pytest.mark.parametrize("kind", ["folder", "mnist", "cells"])
def test_an_archive_that_cannot_be_read_is_to_be_unpacked(
    tmp_path: Path, spool: Path, kind: str, name: str
) -> None:
    begins = {"7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!", "Z": b"\x1f\x9d", "lz": b"LZIP"}
    file = tmp_path / "set" / name
    file.parent.mkdir()
    file.write_bytes(begins[name.rpartition(".")[2]] + bytes(600))
    with pytest.raises(UserError, match="unpack it first"):
        list_archive(str(file), spool)
    with pytest.raises(UserError, match=f"unpack {name} first"):
        resolve(DataConfig(data=f"{kind}:{file.parent}"))


def test_names_of_archives() -> None:
    assert all(is_archive_name(f"x.{kind}") for kind in ("tgz", "TAR.GZ", *KINDS))
    assert not any(is_archive_name(name) for name in ("x.gz", "x.jpg", "tar", "x.rar"))
