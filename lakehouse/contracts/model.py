"""Contracts as the rest of the room knows them: plain immutable records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FieldPath = tuple[str, ...]


class Severity(StrEnum):
    """What a broken rule means: `error` fails, `warning` warns, `info` only tells."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Kind(StrEnum):
    """What a rule is about; each kind is one check in Dagster."""

    SCHEMA = "schema"
    VALUE = "value"
    PHYSICS = "physics"
    SEQUENCE = "sequence"


class Scope(StrEnum):
    """What a schema object of a contract describes."""

    TOPIC = "topic"
    SEQUENCE = "sequence"


@dataclass(frozen=True)
class Tolerance:
    """How many rows may break a rule before it counts as broken; both limits must hold.

    Attributes:
        rows: Number of rows.
        percent: Share of the rows checked.
    """

    rows: int | None = None
    percent: float | None = None

    def allows(self, failed: int, checked: int) -> bool:
        if self.rows is None and self.percent is None:
            return failed == 0
        if self.rows is not None and failed > self.rows:
            return False
        # A quotient of whole numbers is the double nearest to it, as the limit is the one nearest to what was written.
        return self.percent is None or failed == 0 or 100 * failed / max(checked, 1) <= self.percent

    def __str__(self) -> str:
        limits = [f"{self.rows:,} rows"] if self.rows is not None else []
        limits += [f"{self.percent:g} % of the rows"] if self.percent is not None else []
        return " and ".join(limits)


NO_TOLERANCE = Tolerance()


@dataclass(frozen=True)
class PropertySpec:
    """What a contract says about one field.

    Attributes:
        path: Names from the top; a list element is `element`.
        logical_type: Of the standard; None: anything.
        physical_type: Arrow type as text; None: anything.
        required: Whether every row must have a value, wherever the struct around it has one.
    """

    path: FieldPath
    logical_type: str | None = None
    physical_type: str | None = None
    required: bool | None = None


@dataclass(frozen=True)
class RuleSpec:
    """One rule of a contract.

    Attributes:
        id: Unique within a topic; a refining contract replaces a rule by naming its id.
        rule: Name of the rule type, e.g. `range`, `gaps`.
        path: Field it is about; empty for the whole row or sequence.
        parameters: Checked by the rule type.
        contract, contract_version: Where it comes from.
        line: In the contract's file.
        disabled: Present only to remove an inherited rule.
    """

    id: str
    rule: str
    path: FieldPath
    parameters: Mapping[str, Any]
    severity: Severity
    dimension: str
    description: str
    tolerance: Tolerance
    contract: str
    contract_version: str
    line: int | None
    disabled: bool = False


@dataclass(frozen=True)
class SchemaObject:
    """One topic or sequence description of a contract.

    Attributes:
        ontology_tag: Applies to topics of this tag; None: of any.
        topics: Pattern of topic paths, `*` for any characters; None: any.
        sequences: Pattern of sequence names; None: any.
        inherit: Whether less specific contracts apply as well, where this one does not override them.
    """

    name: str
    scope: Scope
    ontology_tag: str | None
    topics: str | None
    sequences: str | None
    inherit: bool
    properties: tuple[PropertySpec, ...]
    rules: tuple[RuleSpec, ...]


@dataclass(frozen=True)
class Contract:
    """One contract file.

    Attributes:
        origin: `shipped` or `user`.
        file: Name of its file.
    """

    id: str
    version: str
    name: str
    status: str
    purpose: str
    origin: str
    file: str
    objects: tuple[SchemaObject, ...]


@dataclass(frozen=True)
class EffectiveContract:
    """All that applies to one topic or sequence after refinement.

    Attributes:
        sources: `id version` of the contracts that went in, least specific first.
        properties: By path.
        rules: By id, without disabled ones.
    """

    sources: tuple[str, ...] = ()
    properties: Mapping[FieldPath, PropertySpec] = field(default_factory=dict)
    rules: Mapping[str, RuleSpec] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.rules and not self.properties
