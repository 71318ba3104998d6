"""Requests made from the API's description: of the right kinds, of wrong ones, of odd ones.

``tests/golden/api/docker-api-1.51.json`` is moby's ``api/swagger.yaml`` (Swagger 2.0, Apache-2.0)
as JSON, without its prose.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

GOLDEN = Path(__file__).parents[1] / "golden" / "api" / "docker-api-1.51.json"
DEPTH = 6
"""How deep made values nest at most."""
WRONG = 0.08
"""Chance that a value is of another kind than its schema says."""

TEXTS = (
    "", "a", "busybox", "calm", "true", "0", "-1", "é\u2028", "a/b", "..", "%00", "\x00",
    "\ud83d\ude00", "{}", "[]", "80/tcp", "10.0.0.0/8", "1.5", "x" * 300, "SIGKILL", "no", "a=b",
    "a:b:c", "/",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 7, 1000, 65536, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63), 2**63, 10**30)
ODD: tuple[Any, ...] = (None, True, 0, -1, 1.5, 1e300, "", "x", [], {}, [None], {"": None}, [[]])


@dataclass(frozen=True, kw_only=True)
class Made:
    """A request: what stands in its first line, and its body."""

    method: str
    path: str
    body: bytes | None


class Description:
    """The API's description, and requests that follow it more or less."""

    def __init__(self, seed: int) -> None:
        self._document: dict[str, Any] = json.loads(GOLDEN.read_text())
        self._random = random.Random(seed)

    def operations(self) -> Iterator[tuple[str, str]]:
        """Yield each method and path."""
        for path, methods in self._document["paths"].items():
            for method in methods:
                yield method.upper(), path

    def made(self, method: str, path: str, names: dict[str, list[str]]) -> Made:
        """Make a request for an operation. *names* are objects that there are, by first segment."""
        query: dict[str, str] = {}
        body: bytes | None = None
        target = path
        for parameter in self._document["paths"][path][method.lower()].get("parameters", []):
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                known = names.get(path.split("/")[1], ["x"])
                word = self._random.choice(known) if self._random.random() < 0.8 else self._text()
                target = target.replace(f"{{{name}}}", quote(word.encode("utf-8", "replace"), ""))
            elif place == "query" and self._random.random() < 0.6:
                query[name] = self._in_query(self.value(parameter))
            elif place == "body" and self._random.random() < 0.95:
                made = json.dumps(self.value(parameter["schema"]))
                body = made.encode("utf-8", "replace")
        asked = urlencode(query, errors="replace")
        return Made(method=method, path=f"{target}?{asked}" if asked else target, body=body)

    def _text(self) -> str:
        return self._random.choice(TEXTS)

    @staticmethod
    def _in_query(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """Make a value for a schema, now and then one that it does not allow."""
        if self._random.random() < WRONG:
            return self._random.choice(ODD)
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self.value(self._document["definitions"][name], depth)
        if "allOf" in schema:
            parts = [self.value(part, depth) for part in schema["allOf"]]
            return {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
        if "enum" in schema and self._random.random() < 0.8:
            return self._random.choice(schema["enum"])
        match schema.get("type"):
            case "string":
                return self._text()
            case "integer" | "number":
                return self._random.choice(NUMBERS)
            case "boolean":
                return self._random.random() < 0.5
            case "array":
                count = 0 if depth > DEPTH else self._random.choice((0, 1, 1, 2, 40))
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
        return self._object(schema, depth)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        if depth > DEPTH:
            return {}
        chance = 0.7 if depth == 0 else 0.3
        made = {
            name: self.value(part, depth + 1)
            for name, part in schema.get("properties", {}).items()
            if self._random.random() < chance
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for _ in range(self._random.choice((0, 1, 2))):
                made[self._text()] = self.value(more, depth + 1)
        return made
