"""From the document of a contract to the contract: what the standard leaves open is read and checked here.

Attachment, in the schema object's `customProperties`: `ontologyTag`, `sequences` (a pattern) and `inherit`; the pattern
of topic paths is its `physicalName`, and `physicalType` says `topic` (the default) or `sequence`. Rules of engine
`mosaico` are named in `implementation.rule`, with their parameters beside.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from lakehouse.catalog.errors import quoted
from lakehouse.contracts.document import BrokenContractError, ContractDocument, Path, Problem
from lakehouse.contracts.model import (
    NO_TOLERANCE,
    Contract,
    FieldPath,
    PropertySpec,
    RuleSpec,
    SchemaObject,
    Scope,
    Severity,
    Tolerance,
)
from lakehouse.contracts.rules.catalogue import SEQUENCE_RULES, TOPIC_RULES
from lakehouse.contracts.rules.rule import find_field
from lakehouse.ontology.registry import load_models, model_arrow_schema

ENGINE = "mosaico"
GREAT_EXPECTATIONS = ("great-expectations", "greatExpectations", "great_expectations")
_OBJECT_KEYS = ("ontologyTag", "sequences", "inherit")
_TOLERANCE_KEYS = ("tolerancePercent", "toleranceRows")


def parse_contract(document: ContractDocument, origin: str) -> Contract:
    """Read a contract.

    Raises:
        BrokenContractError: With everything that is wrong in it.
    """
    return _Parser(document, origin).contract()


@dataclass
class _Parser:
    document: ContractDocument
    origin: str
    problems: list[Problem] = field(default_factory=list)
    tag: str = ""

    def contract(self) -> Contract:
        content = self.document.content
        description = content.get("description") or {}
        contract = Contract(
            id=str(content["id"]),
            version=str(content["version"]),
            name=str(content.get("name") or content["id"]),
            status=str(content.get("status") or "active"),
            purpose=str(description.get("purpose") or "").strip(),
            origin=self.origin,
            file=self.document.file,
            objects=tuple(
                self._object(each, ("schema", number)) for number, each in enumerate(content.get("schema") or [])
            ),
        )
        if not contract.objects:
            self._complain((), "has no schema: expected a list of at least one topic or sequence")
        if self.problems:
            raise BrokenContractError(sorted(self.problems, key=lambda problem: problem.line or 0))
        return contract

    def _complain(self, path: Path, text: str) -> None:
        self.problems.append(self.document.problem(path, text))

    def _object(self, content: Mapping[str, Any], at: Path) -> SchemaObject:
        custom = self._custom(content, at, _OBJECT_KEYS)
        kind = str(content.get("physicalType") or Scope.TOPIC)
        if kind not in tuple(Scope):
            self._complain((*at, "physicalType"), f"physicalType is {quoted(kind)}; expected topic or sequence")
            kind = Scope.TOPIC
        scope = Scope(kind)
        tag, topics = custom.get("ontologyTag"), content.get("physicalName")
        if scope is Scope.TOPIC and tag is None and topics is None:
            self._complain(
                at,
                "applies to nothing: expected the custom property ontologyTag or a topic pattern as physicalName",
            )
        self.tag = str(tag)
        schema = model_arrow_schema(self.tag) if self.tag in load_models() else None
        properties: list[PropertySpec] = []
        rules: list[RuleSpec] = list(self._rules(content, at, (), scope, schema))
        for spec, found in self._properties(content, at, (), schema):
            properties.append(spec)
            rules += found
        self._check_ids(rules)
        return SchemaObject(
            name=str(content["name"]),
            scope=scope,
            ontology_tag=None if tag is None else str(tag),
            # All topics are no particular ones.
            topics=None if topics in (None, "*") else str(topics).lstrip("/"),
            sequences=None if custom.get("sequences") is None else str(custom["sequences"]),
            inherit=bool(custom.get("inherit", True)),
            properties=tuple(properties),
            rules=tuple(rules),
        )

    def _properties(
        self, content: Mapping[str, Any], at: Path, parent: FieldPath, schema: pa.Schema | None
    ) -> Iterator[tuple[PropertySpec, list[RuleSpec]]]:
        children = [(each, (*at, "properties", n)) for n, each in enumerate(content.get("properties") or [])]
        if parent and content.get("items"):
            children.append(({"name": "element", **content["items"]}, (*at, "items")))
        for each, place in children:
            path = (*parent, str(each["name"]))
            if schema is not None and find_field(schema, path) is None:
                self._complain(place, self._unknown_column(path, schema))
                continue
            spec = PropertySpec(path, each.get("logicalType"), each.get("physicalType"), each.get("required"))
            self._check_unit(each, place, path, schema)
            yield spec, list(self._rules(each, place, path, Scope.TOPIC, schema))
            yield from self._properties(each, place, path, schema)

    def _unknown_column(self, path: FieldPath, schema: pa.Schema) -> str:
        around = find_field(schema, path[:-1])
        names = [child.name for child in (schema if around is None else around.type)]
        close = difflib.get_close_matches(path[-1], names, 1)
        hint = f"; did you mean {quoted(close[0])}?" if close else f"; expected one of {', '.join(names)}"
        return f"unknown column {quoted('.'.join(path))}{hint}"

    def _check_unit(self, content: Mapping[str, Any], at: Path, path: FieldPath, schema: pa.Schema | None) -> None:
        unit = self._custom(content, at, ("unit",)).get("unit")
        if unit is None or schema is None:
            return
        known = next((found.unit for known_path, found in load_models()[self.tag].walk() if known_path == path), None)
        if known is not None and known != unit:
            self._complain(at, f"{quoted('.'.join(path))} is in {known} in the ontology, not in {unit}")

    def _rules(
        self, content: Mapping[str, Any], at: Path, path: FieldPath, scope: Scope, schema: pa.Schema | None
    ) -> Iterator[RuleSpec]:
        for number, quality in enumerate(content.get("quality") or []):
            place = (*at, "quality", number)
            # Text is for people; anything else is for us.
            if quality.get("type") == "text":
                continue
            rule = self._rule(quality, place, path, scope, schema)
            if rule is not None:
                yield rule

    def _rule(
        self, quality: Mapping[str, Any], at: Path, path: FieldPath, scope: Scope, schema: pa.Schema | None
    ) -> RuleSpec | None:
        custom = self._custom(quality, at, ("disabled",))
        name, parameters, tolerance = self._what(quality, at)
        if name is None:
            return None
        known: Mapping[str, Any] = SEQUENCE_RULES if scope is Scope.SEQUENCE else TOPIC_RULES
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {quoted(close[0])}?" if close else f"expected one of {', '.join(sorted(known))}"
            self._complain(at, f"unknown rule {quoted(name)} for a {scope}; {hint}")
            return None
        kind = known[name]
        try:
            checked = kind.parameters.model_validate(parameters)
        except ValidationError as error:
            self._complain(at, f"rule {name}: {_parameter_text(error, kind.parameters)}")
            return None
        if scope is Scope.TOPIC:
            complaint = kind.complaint(path, checked, schema)
            missing = [
                each for each in kind.fields(path, checked) if schema is not None and not find_field(schema, each)
            ]
            if complaint is None and missing and schema is not None:
                complaint = self._unknown_column(missing[0], schema)
            if complaint is not None:
                self._complain(at, f"rule {name}: {complaint}")
                return None
        severity = str(quality.get("severity") or Severity.ERROR)
        if severity not in tuple(Severity):
            self._complain((*at, "severity"), f"severity is {quoted(severity)}; expected error, warning or info")
            return None
        return RuleSpec(
            id=str(quality.get("id") or "_".join((*path, name))),
            rule=name,
            path=path,
            parameters=checked.model_dump(by_alias=True, exclude_unset=True),
            severity=Severity(severity),
            dimension=str(quality.get("dimension") or kind.dimension),
            description=str(quality.get("description") or "").strip(),
            tolerance=tolerance,
            contract=str(self.document.content["id"]),
            contract_version=str(self.document.content["version"]),
            line=self.document.problem(at, "").line,
            disabled=bool(custom.get("disabled", False)),
        )

    def _what(self, quality: Mapping[str, Any], at: Path) -> tuple[str | None, dict[str, Any], Tolerance]:
        """Rule type, parameters and tolerance of a quality entry."""
        nothing: tuple[None, dict[str, Any], Tolerance] = (None, {}, NO_TOLERANCE)
        if quality.get("type") == "sql":
            self._complain(at, "rules of type sql are not run here; expected type library or custom")
            return nothing
        if "metric" in quality or quality.get("type") in (None, "library"):
            return self._library(quality, at)
        engine, implementation = str(quality.get("engine")), quality.get("implementation")
        if engine != ENGINE and engine not in GREAT_EXPECTATIONS:
            expected = f"expected {ENGINE} or {GREAT_EXPECTATIONS[0]}"
            self._complain((*at, "engine"), f"unknown engine {quoted(engine)}; {expected}")
            return nothing
        name_key = "rule" if engine == ENGINE else "type"
        if not isinstance(implementation, Mapping) or not isinstance(implementation.get(name_key), str):
            self._complain((*at, "implementation"), f"expected a mapping with the name of the rule under {name_key}")
            return nothing
        parameters = {str(key): value for key, value in implementation.items()}
        try:
            tolerance = _tolerance(parameters.pop("toleranceRows", None), parameters.pop("tolerancePercent", None))
        except ValueError as error:
            self._complain((*at, "implementation"), str(error))
            return nothing
        if engine == ENGINE:
            return parameters.pop("rule"), parameters, tolerance
        return "expectation", parameters, tolerance

    def _library(self, quality: Mapping[str, Any], at: Path) -> tuple[str | None, dict[str, Any], Tolerance]:
        """The metrics of the standard as rules; their operators become tolerances or limits."""
        nothing: tuple[None, dict[str, Any], Tolerance] = (None, {}, NO_TOLERANCE)
        metric, arguments = quality.get("metric"), dict(quality.get("arguments") or {})
        if metric == "rowCount":
            limits = _limits(quality)
            if limits is None:
                self._complain(at, "rowCount: expected mustBe, mustBeBetween, or a limit with greater or less")
                return nothing
            return "row_count", limits, NO_TOLERANCE
        if metric == "duplicateValues":
            text = "duplicateValues is not run on streams; for repeated times use rule monotonic_time with strict: true"
            self._complain(at, text)
            return nothing
        try:
            tolerance = _metric_tolerance(quality)
        except ValueError as error:
            self._complain(at, f"{metric}: {error}")
            return nothing
        if metric == "nullValues":
            return "present", {"nanIsMissing": False}, tolerance
        if metric == "missingValues":
            return "present", {"emptyIsMissing": True}, tolerance
        if metric == "invalidValues" and set(arguments) == {"validValues"}:
            return "enumeration", {"values": arguments["validValues"]}, tolerance
        if metric == "invalidValues" and set(arguments) == {"pattern"}:
            return "pattern", {"pattern": arguments["pattern"]}, tolerance
        self._complain(at, "invalidValues: expected arguments with validValues or pattern")
        return nothing

    def _custom(self, content: Mapping[str, Any], at: Path, known: Sequence[str]) -> dict[str, Any]:
        """The custom properties that are ours."""
        found = content.get("customProperties") or []
        return {str(each["property"]): each["value"] for each in found if each["property"] in known}

    def _check_ids(self, rules: Sequence[RuleSpec]) -> None:
        lines: dict[str, int | None] = {}
        for rule in rules:
            if rule.id in lines:
                text = f"duplicated rule id {quoted(rule.id)}, first in line {lines[rule.id]}; expected unique ids"
                self.problems.append(Problem(self.document.file, rule.line, text))
            lines.setdefault(rule.id, rule.line)


def _parameter_text(error: ValidationError, model: Any) -> str:
    names = ", ".join(info.alias or name for name, info in model.model_fields.items()) or "none"
    texts = []
    for each in error.errors():
        where = ".".join(map(str, each["loc"]))
        if each["type"] == "extra_forbidden":
            texts.append(f"unknown parameter {quoted(where)}; expected {names}")
        else:
            message = each["msg"].removeprefix("Value error, ")
            texts.append(f"{where}: {message}" if where else message)
    return "; ".join(texts)


def _tolerance(rows: Any, percent: Any) -> Tolerance:
    is_count = rows is None or (isinstance(rows, int) and not isinstance(rows, bool) and rows >= 0)
    is_share = percent is None or (isinstance(percent, int | float) and 0 <= percent <= 100)
    if not is_count:
        raise ValueError("toleranceRows: expected a whole number of rows")
    if not is_share:
        raise ValueError("tolerancePercent: expected a number from 0 to 100")
    return Tolerance(rows, percent)


def _metric_tolerance(quality: Mapping[str, Any]) -> Tolerance:
    """How many rows may be bad, from the operator of a metric that counts bad ones."""
    is_percent = quality.get("unit") == "percent"
    if quality.get("mustBe") == 0 and not isinstance(quality.get("mustBe"), bool):
        return NO_TOLERANCE
    for operator in ("mustBeLessOrEqualTo", "mustBeLessThan"):
        if operator in quality:
            limit = quality[operator]
            if is_percent:
                return Tolerance(percent=limit)
            return Tolerance(rows=int(limit) - (operator == "mustBeLessThan" and limit == int(limit)))
    raise ValueError("expected mustBe: 0, mustBeLessThan or mustBeLessOrEqualTo")


def _limits(quality: Mapping[str, Any]) -> dict[str, float] | None:
    if "mustBe" in quality:
        return {"min": quality["mustBe"], "max": quality["mustBe"]}
    if "mustBeBetween" in quality:
        return {"min": quality["mustBeBetween"][0], "max": quality["mustBeBetween"][1]}
    simple = {
        "mustBeGreaterOrEqualTo": ("min", 0),
        "mustBeGreaterThan": ("min", 1),
        "mustBeLessOrEqualTo": ("max", 0),
        "mustBeLessThan": ("max", -1),
    }
    for operator, (limit, step) in simple.items():
        if operator in quality:
            return {limit: quality[operator] + step}
    return None
