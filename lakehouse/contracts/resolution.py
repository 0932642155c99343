"""What applies to a topic or a sequence: contracts refine one another, from the general to the specific.

Order, each layer overriding the ones before by rule id and by column:

1. shipped contracts, for all topics and then for the topic's ontology tag
2. the user's contracts for all topics, and then for the tag
3. the user's contracts with a topic pattern; longer patterns (without `*`) come later
4. among equals, those limited to certain sequences come later, then order of contract ids

A layer with `inherit: false` throws away everything before it; a rule with `disabled: true` removes the inherited one.
"""

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from lakehouse.catalog.records import TopicRecord
from lakehouse.contracts.model import (
    NO_TOLERANCE,
    Contract,
    EffectiveContract,
    FieldPath,
    PropertySpec,
    RuleSpec,
    SchemaObject,
    Scope,
    Severity,
)
from lakehouse.contracts.rules.schema import RequiredValues, SchemaMatches


def contract_of_topic(contracts: Iterable[Contract], topic: TopicRecord) -> EffectiveContract:
    """All that applies to a topic."""
    layers = [
        (contract, each)
        for contract in contracts
        for each in contract.objects
        if each.scope is Scope.TOPIC and _applies(each, topic)
    ]
    return _with_schema_rules(_merge(layers))


def contract_of_sequence(contracts: Iterable[Contract], sequence: str) -> EffectiveContract:
    """All that applies to a sequence as a whole."""
    layers = [
        (contract, each)
        for contract in contracts
        for each in contract.objects
        if each.scope is Scope.SEQUENCE and _matches(each.sequences, sequence)
    ]
    return _merge(layers)


def _applies(each: SchemaObject, topic: TopicRecord) -> bool:
    return (
        each.ontology_tag in (None, topic.ontology_tag)
        and _matches(each.topics, topic.locator.path)
        and _matches(each.sequences, topic.locator.sequence)
    )


def _matches(pattern: str | None, name: str) -> bool:
    return pattern is None or fnmatchcase(name, pattern)


def _specificity(layer: tuple[Contract, SchemaObject]) -> tuple[bool, bool, int, bool, bool, str]:
    contract, each = layer
    return (
        contract.origin == "user",
        each.topics is not None,
        len((each.topics or "").replace("*", "")),
        each.ontology_tag is not None,
        each.sequences is not None,
        contract.id,
    )


def _merge(layers: list[tuple[Contract, SchemaObject]]) -> EffectiveContract:
    sources: list[str] = []
    properties: dict[FieldPath, PropertySpec] = {}
    rules: dict[str, RuleSpec] = {}
    for contract, each in sorted(layers, key=_specificity):
        if not each.inherit:
            sources, properties, rules = [], {}, {}
        sources.append(f"{contract.id} {contract.version}")
        for wanted in each.properties:
            properties[wanted.path] = _refined(properties.get(wanted.path), wanted)
        for rule in each.rules:
            rules.pop(rule.id, None)
            if not rule.disabled:
                rules[rule.id] = rule
            elif rule.rule in (SchemaMatches.name, RequiredValues.name):
                # These two come by themselves, so that removing them has to be remembered.
                rules[rule.id] = rule
    return EffectiveContract(tuple(dict.fromkeys(sources)), properties, rules)


def _refined(general: PropertySpec | None, specific: PropertySpec) -> PropertySpec:
    if general is None:
        return specific
    return PropertySpec(
        specific.path,
        specific.logical_type or general.logical_type,
        specific.physical_type or general.physical_type,
        general.required if specific.required is None else specific.required,
    )


def _with_schema_rules(contract: EffectiveContract) -> EffectiveContract:
    """With the rules about columns and their types that follow from the properties."""
    rules = dict(contract.rules)
    wanted: dict[type[SchemaMatches | RequiredValues], bool] = {
        SchemaMatches: bool(contract.properties),
        RequiredValues: any(p.required for p in contract.properties.values()),
    }
    source, _, version = contract.sources[-1].partition(" ") if contract.sources else ("", "", "")
    for kind, is_wanted in wanted.items():
        if is_wanted and kind.name not in rules:
            rules[kind.name] = RuleSpec(
                kind.name, kind.name, (), {}, Severity.ERROR, kind.dimension, "", NO_TOLERANCE, source, version, None
            )
    return replace(contract, rules={key: rule for key, rule in rules.items() if not rule.disabled})
