import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from sixfold.data.archives import is_archive_name, list_archive
from sixfold.data.extents import ExtentReader
from sixfold.data.images import BadImageError
from sixfold.data.trees import open_tree
from sixfold.errors import UserError

CONTENT = {
    f"train/{'cat' if i % 2 else 'dog'}/{i:03}.bin": bytes([i]) * (700 * i) for i in range(9)
}
KINDS = ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip", "stored.zip", "pax.tar")


def write_archive(path: Path) -> Path:
    if path.name.endswith("zip"):
        packing = zipfile.ZIP_STORED if "stored" in path.name else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", packing) as archive:
            for name, data in CONTENT.items():
                archive.writestr(name, data)
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
    files, _ = list_archive(str(archive(kind)), spool)
    with ExtentReader() as reader:
        assert {name: reader.read(extent) for name, extent in files.items()} == CONTENT
    assert len(list(spool.iterdir())) == (kind in ("tar.gz", "tar.xz", "tar.bz2"))


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
    import lzma

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
    files, folders = list_archive(str(tmp_path / "a.tar"), spool)
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
    files, _ = list_archive(str(path), spool)
    extent = files["train/cat/005.bin"]
    data = bytearray(path.read_bytes())
    data[extent.offset + 2] ^= 0x55
    path.write_bytes(bytes(data))
    with ExtentReader() as reader, pytest.raises(BadImageError):
        reader.read(extent)


def test_forged_sizes_ask_for_nothing(archive: Callable[[str], Path], spool: Path) -> None:
    files, _ = list_archive(str(archive("zip")), spool)
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


def test_links_and_hidden_files_are_not_images(tmp_path: Path, spool: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("train/cat/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in ("./train/cat/a.jpg", "train/cat/._a.jpg", "__MACOSX/a.jpg", "../up.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    assert list(open_tree(str(tmp_path / "a.tar"), spool).files) == ["train/cat/a.jpg"]


def test_what_cannot_be_unpacked_is_told(tmp_path: Path, spool: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x" * 100)
    with pytest.raises(UserError, match="unpack the archive yourself"):
        list_archive(str(tmp_path / "a.zip"), spool)
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(UserError, match=r"notes.txt: neither a folder nor an archive"):
        list_archive(str(tmp_path / "notes.txt"), spool)


def test_an_archive_behind_a_url_is_copied(archive: Callable[[str], Path], spool: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/archives/set.zip", archive("zip").read_bytes())
    files, _ = list_archive("memory://archives/set.zip", spool)
    with ExtentReader() as reader:
        assert reader.read(files["train/cat/003.bin"]) == CONTENT["train/cat/003.bin"]


def test_names_of_archives() -> None:
    assert all(is_archive_name(f"x.{kind}") for kind in ("tgz", "TAR.GZ", *KINDS))
    assert not any(is_archive_name(name) for name in ("x.gz", "x.jpg", "tar", "x.rar"))
