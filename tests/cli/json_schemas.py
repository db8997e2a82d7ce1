"""The JSON Schema files of the commands' documents: kept up to date from real documents.

``python tests/cli/json_schemas.py``, with ``src`` on the path, adds to the files the fields and types that
the documents of test_json.py have. Descriptions and what else was written into them stay.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.cli.output import SCHEMA

__all__ = ["MAPS", "file_of", "infer", "merged", "of_command", "read"]

Schema = dict[str, Any]

DIRECTORY: Final = Path(__file__).parents[2] / "src" / "buildkit_migrate" / "cli" / "schemas"

MAPS: Final = {".results", ".counts", ".verdict.counts", ".results{}.stages"}
"""Objects whose names are data: of rules, of stages."""


def file_of(command: str) -> Path:
    return DIRECTORY / f"{command}.schema.json"


def read(command: str) -> Schema:
    found: Schema = json.loads(file_of(command).read_text())
    return found


def of_command(command: str, documents: Sequence[dict[str, Any]]) -> Schema:
    """The schema that these documents of a command suggest."""
    schema = infer(documents)
    schema["type"] = "object"
    schema["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"buildkit-migrate {command} --format json",
        **schema,
    }


def infer(values: Sequence[Any], path: str = "") -> Schema:
    """A schema for all of these values. Null, but for lists: it does not apply, or was not counted."""
    found = [value for value in values if value is not None]
    kinds = {kind(value) for value in found}
    if kinds == {"array"}:
        inner = [one for value in found for one in value]
        types = ["array", "null"] if len(found) < len(values) else "array"
        return {"type": types, **({"items": infer(inner, f"{path}[]")} if inner else {})}
    if not kinds:
        return {}
    types = sorted(kinds if path.endswith("[]") else kinds | {"null"})
    schema: Schema = {"type": types[0] if len(types) == 1 else types}
    if kinds == {"object"}:
        if path in MAPS:
            inner = [one for value in found for one in value.values()]
            return {**schema, "additionalProperties": infer(inner, f"{path}{{}}")}
        names = dict.fromkeys(name for value in found for name in value)
        schema["properties"] = {
            name: infer([value[name] for value in found if name in value], f"{path}.{name}") for name in names
        }
        schema["required"] = [name for name in names if all(name in value for value in found)]
    return schema


def kind(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def merged(old: Schema, new: Schema) -> Schema:
    """``old`` with what it lacks of ``new``. A field that some new object does not have is not required."""
    result = {**old, **new, **old}  # in the order of the old one
    if "type" in old and "type" in new:
        types = {*_several(old["type"]), *_several(new["type"])}
        types -= {"integer"} if "number" in types else set()
        result["type"] = min(types) if len(types) == 1 else sorted(types)
    if "properties" in old and "properties" in new:
        mine, other = old["properties"], new["properties"]
        result["properties"] = {
            name: merged(mine.get(name, {}), other.get(name, {})) for name in {**mine, **other}
        }
        absent = {*old["required"]} - {*new["required"]} if new["required"] else set()
        fresh = [name for name in new["required"] if name not in mine]
        result["required"] = [name for name in [*old["required"], *fresh] if name not in absent]
    for inner in ("items", "additionalProperties"):
        if inner in old and inner in new:
            result[inner] = merged(old[inner], new[inner])
    return result


def _several(types: str | Iterable[str]) -> Iterable[str]:
    return [types] if isinstance(types, str) else types


def main() -> None:
    from test_json import COMMANDS

    DIRECTORY.mkdir(exist_ok=True)
    for command, documents in COMMANDS.items():
        with tempfile.TemporaryDirectory() as directory:
            schema = of_command(command, [found for _, found in documents(Path(directory))])
        if file_of(command).exists():
            schema = merged(read(command), schema)
        file_of(command).write_text(json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    main()
