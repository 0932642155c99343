"""Copies of metadata files on disk are bounded, and nothing that happens to their directory can change an answer."""

from pathlib import Path

import pytest

from lakehouse.catalog.iceberg.file_cache import FileCache

MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "cache", MIB)


def copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def test_a_copy_is_what_was_put_in_for_every_process(cache: FileCache, tmp_path: Path) -> None:
    cache.put("s3://b/a", b"first")
    cache.put("s3://b/b", b"")
    other = FileCache(tmp_path / "cache", MIB)
    assert [other.get(f"s3://b/{name}") for name in "abc"] == [b"first", b"", None]


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 32, b"x" * 100])
def test_a_damaged_copy_is_none_and_is_replaced(cache: FileCache, tmp_path: Path, damage: bytes) -> None:
    cache.put("s3://b/a", b"first")
    copies(tmp_path)[0].write_bytes(damage)
    assert cache.get("s3://b/a") is None
    cache.put("s3://b/a", b"first")
    assert cache.get("s3://b/a") == b"first"


def test_a_copy_under_another_name_is_not_believed(cache: FileCache, tmp_path: Path) -> None:
    cache.put("s3://b/a", b"first")
    (first,) = copies(tmp_path)
    cache.put("s3://b/b", b"second")
    (second,) = set(copies(tmp_path)) - {first}
    second.write_bytes(first.read_bytes())
    assert cache.get("s3://b/b") is None


def test_the_directory_stays_within_its_bound_and_keeps_what_is_used(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", MIB)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "half-written").write_bytes(bytes(MIB // 2))
    for number in range(100):
        cache.put(f"s3://b/{number}", bytes(MIB // 20))
        assert sum(path.stat().st_size for path in copies(tmp_path)) <= MIB * 17 / 16
    assert cache.get("s3://b/99") is not None
    assert cache.get("s3://b/0") is None
    cache.put("s3://b/large", bytes(MIB))
    assert cache.get("s3://b/large") is None


def test_a_disk_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    cache = FileCache(tmp_path / "cache", MIB)
    cache.put("s3://b/a", b"first")
    assert cache.get("s3://b/a") is None
