"""How ontology tags and topic paths become names of Iceberg namespaces and tables.

The names must be usable unquoted in Spark and Trino, as directories on every file system, and as keys in object
stores: lower snake case of ASCII letters, digits and underscores. What a name loses is kept in properties; two
originals with one name are told apart by a hash of the original.
"""

import hashlib
import re

METADATA_NAMESPACE = "mosaico"
MAX_SLUG_LENGTH = 100
_HASH_LENGTH = 8

_ACRONYM_END = re.compile(r"([A-Z]+)([A-Z][a-z])")
_WORD_END = re.compile(r"([a-z0-9])([A-Z])")
_NOT_ALLOWED = re.compile(r"[^a-z0-9]+")

# Reserved words of Spark SQL (ANSI mode) and Trino, which would need quotes.
_RESERVED_WORDS_TEXT = """
    all alter and anti any array as asc at authorization between both by call case cast check collate column commit
    constraint create cross cube current current_catalog current_date current_path current_role current_schema
    current_time current_timestamp current_user database deallocate default delete desc describe distinct drop else
    end escape except execute exists explain extract false fetch filter for foreign from full function global grant
    group grouping having in inner insert intersect interval into is join json_array json_exists json_object
    json_query json_table json_value lateral leading left like limit listagg local localtime localtimestamp map minus
    natural no normalize not null of offset on only or order out outer overlaps position prepare primary range recursive
    references replace revoke right rollback rollup row rows select semi session_user set show skip some start struct
    sysdate table tables tablesample then time timestamp to trailing trim true truncate uescape union unique unknown
    unnest update use user using values view when where window with within without year
"""
_RESERVED_WORDS = frozenset(_RESERVED_WORDS_TEXT.split())
# Names that are devices on Windows, whatever their extension.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
_RESERVED_NAMESPACES = frozenset({METADATA_NAMESPACE, "information_schema", "system", "sys", "global_temp", "lake"})


def namespace_candidates(ontology_tag: str) -> tuple[str, ...]:
    """Namespace names for a tag, best first; the last one is no other tag's."""
    plain, hashed = slug(ontology_tag, prefix="tag"), _hashed(ontology_tag, prefix="tag")
    return (hashed,) if plain in _RESERVED_NAMESPACES else (plain, hashed)


def table_candidates(topic_path: str, version: int = 1) -> tuple[str, ...]:
    """Table names for a topic path, best first; the last one is no other path's.

    Args:
        topic_path: The path as users know it.
        version: Number of the table among those of the path; above 1 for schemas the earlier ones cannot hold.
    """
    suffix = f"_v{version}" if version > 1 else ""
    return tuple(name + suffix for name in (slug(topic_path, prefix="topic"), _hashed(topic_path, prefix="topic")))


def slug(original: str, prefix: str) -> str:
    """Lower snake case of `original`: `sensors/frontIMU` becomes `sensors_front_imu`.

    Args:
        original: Any text.
        prefix: Put in front of what would not be a name otherwise: digits, reserved words, nothing at all.
    """
    name = _snake_case(original)
    if not name:
        return _hashed(original, prefix)
    if len(name) > MAX_SLUG_LENGTH:
        return _hashed(original, prefix)
    return _made_safe(name, prefix)


def _snake_case(original: str) -> str:
    spaced = _WORD_END.sub(r"\1_\2", _ACRONYM_END.sub(r"\1_\2", original))
    return _NOT_ALLOWED.sub("_", spaced.lower()).strip("_")


def _made_safe(name: str, prefix: str) -> str:
    if name[0].isdigit() or name in _RESERVED_WORDS or name in _DEVICES:
        return f"{prefix}_{name}"
    return name


def _hashed(original: str, prefix: str) -> str:
    digest = hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    start = _snake_case(original)[: MAX_SLUG_LENGTH - _HASH_LENGTH - 1].strip("_")
    return _made_safe(f"{start or prefix}_{digest}", prefix)
