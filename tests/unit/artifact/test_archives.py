"""Archives: the same bytes each time, and nothing lost on the way there and back."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.artifact.archive import Member, members_of, pack, unpack
from reconcile.artifact.errors import ArchiveTooLarge
from reconcile.artifact.ignore import tree_ignore
from reconcile.errors import Invalid
from tests.support.artifacts import FILES, entry, members, packed, tarball, tree, zipped

NAMES = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1, max_size=50).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(tuple), st.tuples(st.binary(max_size=1500), st.booleans()), max_size=6
)


def listing(archive: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getmembers()


def test_entries_are_as_upstream_writes_them() -> None:
    found = listing(packed())
    assert [(e.name, e.isdir(), oct(e.mode)) for e in found] == [
        (".", True, "0o750"),
        ("a.yaml", False, "0o600"),
        ("bin", True, "0o750"),
        ("bin/run.sh", False, "0o700"),
        ("dir", True, "0o750"),
        ("dir/sub", True, "0o750"),
        ("dir/sub/c.yaml", False, "0o600"),
    ]
    assert {(e.uid, e.gid, e.uname, e.gname, e.mtime) for e in found} == {(0, 0, "", "", 0)}


def test_packing_again_gives_the_same_bytes() -> None:
    first = packed()
    assert first == packed()
    # The header of gzip has no time and no name; a digest that is written down here holds on every machine with this zlib.
    assert first[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"


def test_folders_are_packed_once_and_empty_ones_when_asked_for() -> None:
    out = io.BytesIO()
    pack(members(), out, directories=["empty/er", "dir"])
    names = [e.name for e in listing(out.getvalue())]
    assert names[:4] == [".", "empty", "empty/er", "dir"]
    assert len(names) == len(set(names))


def test_a_folder_that_is_left_out_has_no_entry_but_its_file_has() -> None:
    ignore = tree_ignore({}, "dir/\n!dir/sub/c.yaml")
    assert not ignore.ignored("dir/sub/c.yaml")
    out = io.BytesIO()
    pack(members(), out, ignore=ignore)
    assert [e.name for e in listing(out.getvalue())] == [".", "a.yaml", "bin", "bin/run.sh", "dir/sub/c.yaml"]


@pytest.mark.parametrize(
    "paths", [["/etc/passwd"], ["../x"], ["a/../../x"], ["a\\b"], ["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a", "./a"], ["a\0b"]]
)
def test_paths_that_cannot_be_packed(paths: list[str]) -> None:
    with pytest.raises(Invalid, match="cannot be packed"):
        pack([Member(path, b"") for path in paths], io.BytesIO())


def test_what_was_packed_comes_back(tmp_path: Path) -> None:
    index = unpack(io.BytesIO(packed()), tmp_path / "into")
    assert tree(tmp_path / "into") == FILES
    assert os.access(tmp_path / "into/bin/run.sh", os.X_OK)
    assert (tmp_path / "into/a.yaml").stat().st_mode & 0o777 == 0o400
    assert index.files == {path: hashlib.sha256(data).hexdigest() + "x" * path.endswith(".sh") for path, data in FILES.items()}
    assert index.size == sum(map(len, FILES.values()))
    assert [p.name for p in tmp_path.iterdir()] == ["into"]


def test_the_index_tells_content_and_mode_apart(tmp_path: Path) -> None:
    def files(name: str, data: bytes, executable: bool) -> dict[str, str]:
        out = io.BytesIO()
        pack([Member("a", data, executable)], out)
        return dict(unpack(io.BytesIO(out.getvalue()), tmp_path / name).files)

    seen = [files("1", b"1", False), files("2", b"2", False), files("3", b"1", True), files("4", b"1", False)]
    assert seen[0] == seen[3]
    assert len({tuple(found.items()) for found in seen}) == 3


def test_long_and_foreign_names(tmp_path: Path) -> None:
    files = {
        "l" * 101: b"1",
        "/".join(["d" * 90] * 5): b"2",
        "ü/€.yaml": b"3",
        "b\udcff\udcfe": b"4",
        "x" * 255: b"5",
        "ä" * 127: b"6",
    }
    unpack(io.BytesIO(packed(files)), tmp_path / "into")
    assert tree(tmp_path / "into") == files


@pytest.mark.needs("tar")
def test_gnu_tar_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    files = {"l" * 150: b"1", "d" * 99 + "/" + "e" * 120: b"2", "ü": b"3" * 100_000, "run.sh": b"4"}
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-xzf", "-", "-C", tmp_path / "theirs"], input=packed(files), check=True, timeout=60)
    assert tree(tmp_path / "theirs") == files
    for form in ("gnu", "pax", "v7", "ustar"):
        source = tmp_path / "theirs" if form in {"gnu", "pax"} else tmp_path / "short"
        source.mkdir(exist_ok=True)
        if form in {"v7", "ustar"}:
            (source / "a").write_bytes(b"x")
        done = subprocess.run(
            ["tar", f"--format={form}", "-czf", "-", "."], cwd=source, capture_output=True, check=True, timeout=60
        )
        unpack(io.BytesIO(done.stdout), tmp_path / form)
        assert tree(tmp_path / form) == tree(source)


@given(TREES)
@settings(max_examples=40, deadline=None)
def test_there_and_back(drawn: dict[tuple[str, ...], tuple[bytes, bool]]) -> None:
    files: dict[str, tuple[bytes, bool]] = {}
    for parts, content in drawn.items():
        path = "/".join(parts)
        if not any(path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in files):
            files[path] = content
    given_members = [Member(path, data, executable) for path, (data, executable) in sorted(files.items())]
    first, second = io.BytesIO(), io.BytesIO()
    pack(given_members, first)
    with TemporaryDirectory() as folder:
        index = unpack(io.BytesIO(first.getvalue()), Path(folder) / "into")
        assert tree(Path(folder) / "into") == {path: data for path, (data, _) in files.items()}
        assert {path for path, digest in index.files.items() if digest.endswith("x")} == {p for p, (_, x) in files.items() if x}
        pack(members_of(Path(folder) / "into"), second)
        third = io.BytesIO()
        pack(members_of(Path(folder) / "into"), third)
    assert sorted((e.name, e.mode, e.size) for e in listing(first.getvalue())) == sorted(
        (e.name, e.mode, e.size) for e in listing(second.getvalue())
    )
    assert second.getvalue() == third.getvalue()


def test_files_of_a_folder_leave_out_links_and_what_is_ignored(tmp_path: Path) -> None:
    for path in ("b/x", "b.txt", "a/y", "skip/no", "skip/yes"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "link").symlink_to("b.txt")
    (tmp_path / "up").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    found = list(members_of(tmp_path, tree_ignore({}, "skip/\n!skip/yes")))
    assert [(m.path, m.data.decode()) for m in found] == [(p, p) for p in ("a/y", "b/x", "b.txt", "skip/yes")]
    with pytest.raises(ArchiveTooLarge, match="larger than the limit of 2 bytes"):
        list(members_of(tmp_path, largest=2))


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    def many(count: int) -> Iterator[Member]:
        for number in range(count):
            yield Member(f"{number % 10}/{number}", os.urandom(20_000))

    def peak(count: int) -> int:
        with (tmp_path / "a").open("wb") as out:
            tracemalloc.start()
            try:
                pack(many(count), out)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(10)
    assert peak(1000) < 3 * 1024 * 1024 < 1000 * 20_000


def test_unpacking_takes_a_file_in_pieces(tmp_path: Path) -> None:
    archive = zipped(tarball(entry("big", bytes(40 * 1024 * 1024))))
    tracemalloc.start()
    try:
        index = unpack(io.BytesIO(archive), tmp_path / "into")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert index.size == 40 * 1024 * 1024
    assert peak < 4 * 1024 * 1024
