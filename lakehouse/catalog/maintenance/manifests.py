"""Which manifests are merged: size classes, as in a log-structured merge tree.

Manifests of one size class are merged when there are enough of them; the result belongs to the next class. So an entry
is rewritten once per class, a logarithmic number of times, and a table has a logarithmic number of small manifests.
Manifests that are large already are left alone.
"""

from collections.abc import Sequence

from lakehouse.catalog.iceberg.manifest_lists import DATA_CONTENT, ManifestRecord

_BITS_PER_CLASS = 3
MANIFESTS_PER_CLASS = 1 << _BITS_PER_CLASS
LARGE_MANIFEST = 4096
_LARGE_BYTES = 32 << 20


def groups_to_merge(manifests: Sequence[ManifestRecord]) -> list[list[ManifestRecord]]:
    """Groups of manifests, each to become one.

    A merge may complete the class above it: that one is then merged in the same go.
    """
    classes: dict[tuple[int, int], list[ManifestRecord]] = {}
    for manifest in manifests:
        if manifest.content == DATA_CONTENT and manifest.live_files and _is_small(manifest):
            classes.setdefault((manifest.spec_id, _size_class(manifest.live_files)), []).append(manifest)
    groups: list[list[ManifestRecord]] = []
    for spec_id in sorted({spec_id for spec_id, _ in classes}):
        carried: list[ManifestRecord] = []
        for size_class in range(_size_class(LARGE_MANIFEST) + 1):
            members = classes.get((spec_id, size_class), [])
            if len(members) + bool(carried) >= MANIFESTS_PER_CLASS:
                carried = [*carried, *members]
            elif carried:
                break
        for group in _split(carried):
            if len(group) > 1:
                groups.append(group)
    return groups


def _size_class(entries: int) -> int:
    return (entries.bit_length() - 1) // _BITS_PER_CLASS


def _is_small(manifest: ManifestRecord) -> bool:
    return manifest.live_files < LARGE_MANIFEST and manifest.length < _LARGE_BYTES


def _split(manifests: Sequence[ManifestRecord]) -> list[list[ManifestRecord]]:
    """Cut a group where its sum would become too large."""
    groups: list[list[ManifestRecord]] = []
    entries = LARGE_MANIFEST
    for manifest in manifests:
        if entries + manifest.live_files > LARGE_MANIFEST:
            groups.append([])
            entries = 0
        groups[-1].append(manifest)
        entries += manifest.live_files
    return groups
