"""What conditions on user metadata mean, written down a second time as plainly as possible."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any


def satisfies(metadata: dict[str, Any], path: str, operators: dict[str, Any]) -> bool:
    """Whether the metadata satisfies all operators at the path."""
    return all(_satisfies(metadata, path, operator, operand) for operator, operand in operators.items())


def _satisfies(metadata: dict[str, Any], path: str, operator: str, operand: Any) -> bool:
    steps = [step for component in path.split(".") for step in re.findall(r"^[^\[]+|\[[^\]]*\]", component)]
    addressed = [value for value in _walk(metadata, steps) if value is not metadata]
    if operator == "$ex":
        return bool(addressed)
    if operator == "$nex":
        return not addressed
    return any(_compare(scalar, operator, operand) for value in addressed for scalar in _scalars(value))


def _walk(value: Any, steps: list[str]) -> Iterator[Any]:
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if step == "**":
        yield from _walk(value, rest)
        for child in children:
            yield from _walk(child, steps)
    elif step.startswith("["):
        if isinstance(value, list):
            chosen = value if step == "[*]" else value[int(step[1:-1]) :][:1]
            for child in chosen:
                yield from _walk(child, rest)
    elif isinstance(value, list):
        for child in value:
            yield from _walk(child, steps)
    elif isinstance(value, dict):
        for key, child in value.items():
            if step in ("*", key):
                yield from _walk(child, rest)


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for element in value:
            yield from _scalars(element)
    elif not isinstance(value, dict) and value is not None:
        yield value


def _kind(value: Any) -> str:
    return "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _exact(value: Any) -> Any:
    return Fraction(value) if _kind(value) == "number" else value


def _compare(value: Any, operator: str, operand: Any) -> bool:
    operands = operand if isinstance(operand, list) else [operand]
    if _kind(value) != _kind(operands[0]):
        return False
    if operator == "$match":
        return re.fullmatch(_regular_expression(operand), value, re.DOTALL) is not None
    value, operands = _exact(value), [_exact(each) for each in operands]
    low, high = operands[0], operands[-1]
    outcomes = {
        "$eq": value == low,
        "$neq": value != low,
        "$lt": value < low,
        "$leq": value <= low,
        "$gt": value > low,
        "$geq": value >= low,
        "$between": low <= value <= high,
        "$outside": value < low or value > high,
        "$in": value in operands,
    }
    return bool(outcomes[operator])


def _regular_expression(glob: str) -> str:
    translated = {"*": ".*", "?": ".", "#": "[0-9]"}
    tokens = re.findall(r"\[[^\]]+\]|.", glob, re.DOTALL)
    return "".join(token if len(token) > 1 else translated.get(token, re.escape(token)) for token in tokens)
