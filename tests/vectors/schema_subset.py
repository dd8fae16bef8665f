"""As much of JSON Schema as ``specs/vectors/schema.json`` uses; any other keyword is an error."""

import re
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
}
KNOWN = {"$schema", "title", "$defs", "$ref", "type", "const", "enum", "pattern", "items", "required"}
KNOWN |= {"properties", "additionalProperties", "oneOf"}


def violations(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> list[str]:
    """Where ``value`` is not as ``schema`` says."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema:
        return violations(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, where)
    found = []
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return [f"{where}: not of type {schema['type']}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: not one of {schema['enum']}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        found.append(f"{where}: does not match {schema['pattern']}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += violations(item, schema["items"], root, f"{where}[{index}]")
    if isinstance(value, dict):
        found += of_object(value, schema, root, where)
    if "oneOf" in schema:
        tried = [violations(value, one, root, where) for one in schema["oneOf"]]
        if tried.count([]) != 1:
            found.append(
                f"{where}: fits {tried.count([])} of {len(tried)} alternatives, {min(tried, key=len)[:3]}"
            )
    return found


def of_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], where: str) -> list[str]:
    known = schema.get("properties", {})
    found = [f"{where}: no {name}" for name in schema.get("required", ()) if name not in value]
    if schema.get("additionalProperties") is False:
        found += [f"{where}: unknown {name}" for name in value if name not in known]
    for name, inner in known.items():
        if name in value:
            found += violations(value[name], inner, root, f"{where}.{name}")
    return found
