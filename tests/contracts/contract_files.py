"""Contract files for tests."""

from typing import Any

from ruamel.yaml import YAML


def contract_text(
    contract_id: str = "test.contract",
    *,
    tag: str | None = None,
    topics: str | None = None,
    sequences: str | None = None,
    rules: list[dict[str, Any]] | None = None,
    properties: list[dict[str, Any]] | None = None,
    scope: str = "topic",
    inherit: bool = True,
    version: str = "1.0.0",
) -> str:
    """A contract with one schema object, as a user would write it."""
    import io

    custom = {"ontologyTag": tag, "sequences": sequences, **({} if inherit else {"inherit": False})}
    part: dict[str, Any] = {
        "name": "part",
        "physicalType": scope,
        "customProperties": [{"property": key, "value": value} for key, value in custom.items() if value is not None],
        "quality": rules or [],
        "properties": properties or [],
    }
    if topics is not None:
        part["physicalName"] = topics
    document = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": contract_id, "version": version, "schema": [part]}
    stream = io.StringIO()
    YAML().dump(document, stream)
    return stream.getvalue()


def rule(rule_id: str, name: str, severity: str = "error", disabled: bool = False, **parameters: Any) -> dict[str, Any]:
    """A rule of engine mosaico."""
    custom = {"customProperties": [{"property": "disabled", "value": True}]} if disabled else {}
    implementation = {"rule": name, **parameters}
    return {
        "id": rule_id,
        "type": "custom",
        "engine": "mosaico",
        "severity": severity,
        "implementation": implementation,
    } | custom
