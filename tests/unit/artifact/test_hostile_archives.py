"""Archives from people who mean no good: each is refused with a text that names the entry, and leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.artifact.archive import Limits, unpack
from reconcile.artifact.errors import ArchiveError, ArchiveTooLarge
from tests.support.artifacts import entry, packed, tarball, tree, zipped

GOOD = entry("good", b"good")


def refused(tmp_path: Path, archive: bytes, limits: Limits | None = None) -> str:
    """The text of the refusal; nothing may be left."""
    room = tmp_path / "room"
    room.mkdir()
    with pytest.raises(ArchiveError) as caught:
        unpack(io.BytesIO(archive), room / "into", limits)
    assert list(room.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["room"]
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("../up", "leads out"),
        ("a/../../up", "leads out"),
        ("a/..", "leads out"),
        ("..", "leads out"),
        ("a\\b", "backslash"),
        ("..\\up", "backslash"),
        ("C:\\x", "backslash"),
        ("./../up", "leads out"),
        (".", "no name"),
        ("./", None),
        ("n" * 256, "longer than"),
        ("/".join("d" * 129), "folders deep"),
        ("/".join(["p" * 200] * 11), "longer than"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names(tmp_path: Path, name: str, why: str | None, form: int) -> None:
    archive = zipped(tarball(GOOD, entry(name, b"bad"), form=form))
    if why is None:  # a folder by its slash, as old tars have it
        unpack(io.BytesIO(zipped(tarball(GOOD, entry(name), form=form))), tmp_path / "into")
        return
    text = refused(tmp_path, archive)
    assert why in text
    assert repr(name)[1:20].rstrip("'") in text


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V", b"M"]
)
def test_what_is_neither_file_nor_folder_is_left_out(tmp_path: Path, kind: bytes) -> None:
    archive = tarball(
        GOOD, entry("dir/odd", b"", kind, linkname="/etc/passwd"), entry("dir/odd2", b"", kind, linkname="good"), GOOD_TOO
    )
    index = unpack(io.BytesIO(zipped(archive)), tmp_path / "into")
    assert tree(tmp_path / "into") == {"good": b"good", "too": b"too"}
    assert sorted(index.files) == ["good", "too"]
    assert not any(path.is_symlink() for path in (tmp_path / "into").rglob("*"))


GOOD_TOO = entry("too", b"too")


@pytest.mark.parametrize("target", ["/tmp", "..", "../../../etc"])
def test_a_file_through_a_link_stays_inside(tmp_path: Path, target: str) -> None:
    archive = tarball(entry("link", b"", tarfile.SYMTYPE, linkname=target), entry("link/inside", b"x"))
    unpack(io.BytesIO(zipped(archive)), tmp_path / "into")
    assert tree(tmp_path / "into") == {"link/inside": b"x"}
    assert not (tmp_path / "into/link").is_symlink()


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([entry("a", b"1"), entry("a", b"2")], "'a': it is there twice"),
        ([entry("a", b"1"), entry("./a", b"2")], "'./a': it is there twice"),
        ([entry("a", b"1"), entry("a/b", b"2")], "'a/b': 'a' is a file"),
        ([entry("a/b", b"1"), entry("a", b"2")], "'a': it is a folder"),
        ([entry("a", b"", tarfile.DIRTYPE), entry("a", b"2")], "'a': it is a folder"),
        ([entry("a", b"1"), entry("a", b"", tarfile.DIRTYPE)], "'a/': 'a' is a file"),
        ([entry("a", b"", b"S")], "'a': files with holes"),
        ([entry("a", b"", pax_headers={"GNU.sparse.major": "1"})], "'a': files with holes"),
    ],
)
def test_entries_that_contradict_each_other(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], why: str) -> None:
    assert why in refused(tmp_path, zipped(tarball(GOOD, *entries)))


def test_a_folder_may_be_named_twice(tmp_path: Path) -> None:
    folder = entry("a", b"", tarfile.DIRTYPE)
    unpack(io.BytesIO(zipped(tarball(folder, entry("a/b", b"1"), folder))), tmp_path / "into")
    assert tree(tmp_path / "into") == {"a/b": b"1"}


BOMB = zipped(tarball(entry("bomb", bytes(3_000_000))))
CROWD = zipped(tarball(*(entry(f"{number}") for number in range(30))))
DEEP = zipped(tarball(*(entry(f"{number}/a/b/c/d/e/f") for number in range(5))))


@pytest.mark.parametrize(
    ("archive", "limits", "why"),
    [
        (BOMB, Limits(total=1_000_000), "more than the limit of 1000000 bytes"),
        (BOMB, Limits(file=1_000_000), "'bomb': it is larger than the limit of 1000000"),
        (BOMB, Limits(ratio=50, ratio_after=100_000), "more than 50 times its size"),
        (CROWD, Limits(entries=29), "more than the limit of 29 entries"),
        (DEEP, Limits(entries=30), "more than the limit of 30 entries"),
        (zipped(tarball(entry("a/b/c"))), Limits(depth=2), "'a/b/c': it is more than 2 folders deep"),
        (zipped(tarball(entry("abc"))), Limits(path=2), "'abc': its path is longer than 2 bytes"),
    ],
)
def test_limits(tmp_path: Path, archive: bytes, limits: Limits, why: str) -> None:
    assert why in refused(tmp_path, archive, limits)


def test_limits_are_a_kind_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ArchiveTooLarge):
        unpack(io.BytesIO(BOMB), tmp_path / "into", Limits(total=100))


def test_a_bomb_within_a_bomb_ends_at_its_limit(tmp_path: Path) -> None:
    many = b"".join(zipped(bytes(1_000_000)) for _ in range(50))
    assert "more than" in refused(tmp_path, many, Limits(total=2_000_000))


GIANT_HEADER = tarball(entry("x", bytes(2 * 1024 * 1024), b"L"), GOOD)
NO_SIZE = bytearray(tarball(GOOD))
NO_SIZE[124:136] = b"\xff" * 12
NO_SIZE[148:156] = b"%06o\0 " % (sum(NO_SIZE[:148]) + 256 + sum(NO_SIZE[156:512]))
WRONG_SUM = bytearray(tarball(GOOD, GOOD_TOO))
WRONG_SUM[1024] ^= 1


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (b"", "empty"),
        (b"not gzip at all", "not compressed with gzip"),
        (tarball(GOOD), "not compressed with gzip"),
        (packed()[:-1], "truncated"),
        (packed()[:100], "truncated"),
        (packed()[:5], "truncated"),
        (packed()[:-5] + bytes([packed()[-5] ^ 255]) + packed()[-4:], "damaged: gzip: incorrect data check"),
        (packed()[:-8] + bytes(8), "damaged: gzip"),
        (packed() + b"garbage", "followed by something that is not gzip"),
        (packed() + bytes(100) + b"x", "followed by something that is not gzip"),
        (packed() + packed(), "goes on after its end mark"),
        (zipped(tarball(GOOD) + b"garbage"), "goes on after its end mark"),
        (zipped(tarball(GOOD, entry("late"))[:600]), "truncated (after entry 'good')"),
        (zipped(tarball(GOOD)[:513]), "truncated (after entry 'good')"),
        (zipped(bytes(WRONG_SUM)), "wrong checksum of the header (after entry 'good')"),
        (zipped(bytes(NO_SIZE)), "'good' has no valid size"),
        (zipped(b"x" * 512), "wrong checksum of the header (at its first entry)"),
        (zipped(GIANT_HEADER), "over the limit"),
        (zipped(tarball(entry("p", b"nonsense", b"x"), GOOD)), "invalid extended header"),
        (zipped(tarball(entry("p", b"9 size=-\n", b"x"), GOOD)), "no valid size"),
        (zipped(tarball(entry("p", b"11 path=ab\n", b"x"))), "ends after an extended header"),
        (zipped(tarball(entry("p", b"12 path=a\0b\n", b"x"), GOOD)), "invalid extended header"),
    ],
)
def test_broken_archives(tmp_path: Path, archive: bytes, why: str) -> None:
    assert why in refused(tmp_path, archive)


def test_padding_after_the_end_is_nothing_wrong(tmp_path: Path) -> None:
    unpack(io.BytesIO(packed() + bytes(1000)), tmp_path / "1")
    unpack(io.BytesIO(zipped(tarball(GOOD) + bytes(9216))), tmp_path / "2")
    half = len(tarball(GOOD)) // 2
    unpack(io.BytesIO(zipped(tarball(GOOD)[:half]) + zipped(tarball(GOOD)[half:])), tmp_path / "3")
    assert tree(tmp_path / "2") == tree(tmp_path / "3") == {"good": b"good"}


def test_an_occupied_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into/mine").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        unpack(io.BytesIO(packed()), tmp_path / "into")
    assert tree(tmp_path) == {"into/mine": b"mine"}


@given(st.integers(0, 20_000), st.integers(1, 255), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_changed_byte_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int, inside: bool
) -> None:
    plain = tarball(GOOD, entry("dir/x" * 30, b"y" * 700), GOOD_TOO)
    data = bytearray(plain if inside else zipped(plain))
    data[at % len(data)] ^= flip
    room = tmp_path_factory.mktemp("room")
    try:
        index = unpack(io.BytesIO(gzip.compress(data, mtime=0) if inside else bytes(data)), room / "into")
    except ArchiveError:
        assert list(room.iterdir()) == []
    else:
        assert sorted(tree(room)) == sorted(f"into/{path}" for path in index.files)
