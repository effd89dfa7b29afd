"""Render an OpenAPI schema as one page of Markdown: every route, then every schema."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import AppError

Schema = Mapping[str, Any]

# By tag: the title, and the packages of `app` whose errors its routes raise.
DOMAINS = {
    "jobs": ("Jobs", ("jobs",)),
    "bases": ("Base models", ("base_models",)),
    "sweeps": ("Sweeps", ("sweeps",)),
    "datasets": ("Datasets", ("datasets", "label_review")),
    "models": ("Models", ("registry",)),
    "predict": ("Predictions", ("serving",)),
    "predictions": ("Prediction runs", ("predictions",)),
    "labeling": ("Labeling", ("labeling",)),
    "feedback": ("Feedback", ("feedback", "text_erasure")),
    "drift": ("Drift", ("drift",)),
    "retraining": ("Retraining", ("retraining",)),
    "openai": ("OpenAI API", ("openai", "fine_tuning_apis")),
    "mistral": ("Mistral API", ("mistral", "fine_tuning_apis")),
    "webhooks": ("Webhooks", ("webhooks",)),
    "mlflow": ("MLflow", ("mlflow",)),
    "artifacts": ("Artifacts", ("storage",)),
    "health": ("Health and metrics", ()),
}
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
}


def page(described: Schema) -> str:
    """All domains in the order of `DOMAINS`. `KeyError` for a tag that is not there."""
    routes: dict[str, list[str]] = {tag: [] for tag in DOMAINS}
    for path, ways in described["paths"].items():
        for method, way in ways.items():
            (tag,) = way["tags"]
            routes[tag].append(route(f"{method.upper()} {path}", way))
    parts = [
        "\n".join([f"## {title}\n", *codes(packages), *routes[tag]])
        for tag, (title, packages) in DOMAINS.items()
    ]
    shapes = [shape(name, schema) for name, schema in described["components"]["schemas"].items()]
    return "\n".join([*parts, "## Schemas\n", *shapes])


def codes(packages: tuple[str, ...]) -> Iterator[str]:
    """The codes of a domain."""
    found = {
        f"`{cause.code}` ({cause.status})"
        for cause in causes(AppError)
        if cause.__module__ in {f"app.{package}.errors" for package in packages}
    }
    if found:
        yield f"Codes: {', '.join(sorted(found))}.\n"


def causes(kind: type[AppError]) -> Iterator[type[AppError]]:
    for child in kind.__subclasses__():
        if "code" in vars(child):
            yield child
        yield from causes(child)


def route(title: str, way: Schema) -> str:
    scopes = [scope for need in way.get("security", ()) for scope in need["key"]]
    key = f"Scope `{'`, `'.join(scopes)}`." if scopes else "No key required."
    lines = [f"### `{title}`\n", f"{way['description']}\n", f"{key}\n"]
    if given := way.get("parameters"):
        lines.append(table("parameter", (parameter(each) for each in given)))
    if body := way.get("requestBody"):
        lines += [contents("Body", body["content"]), ""]
    lines += answers(way["responses"])
    return "\n".join(lines)


def parameter(given: Schema) -> tuple[str, Schema, bool]:
    place = "" if given["in"] == "query" else f" ({given['in']})"
    schema = {"description": given.get("description", ""), **given["schema"]}
    if "anyOf" in schema:  # left out, not sent as null
        schema["anyOf"] = [option for option in schema["anyOf"] if option != {"type": "null"}]
    return f"`{given['name']}`{place}", schema, given.get("required", False)


def answers(responses: Schema) -> Iterator[str]:
    """The responses on success; errors are problem details."""
    for status, response in responses.items():
        if status.isdecimal():
            description = response["description"].rstrip(".")
            meaning = "" if description == "Successful Response" else f" {description}."
            yield contents(f"Response {status}", response.get("content", {})) + f"{meaning}\n"


def contents(title: str, content: Schema) -> str:
    """`Body: JobCreate.`, or the fields of a form."""
    kinds = []
    for media, facts in content.items():
        schema = facts.get("schema", {})
        if "properties" in schema:
            return f"{title}, {media}:\n\n{fields(schema)}"
        kinds.append(kind(schema) if media == "application/json" else f"`{media}`")
    return f"{title}: {' or '.join(kinds) or 'empty'}."


def shape(name: str, schema: Schema) -> str:
    lines = [f"### {name}\n"]
    if description := schema.get("description"):
        lines.append(f"{description}\n")
    lines.append(fields(schema) if "properties" in schema else f"{kind(schema)}.\n")
    return "\n".join(lines)


def fields(schema: Schema) -> str:
    required = schema.get("required", ())
    properties = schema["properties"].items()
    return table("field", ((f"`{name}`", each, name in required) for name, each in properties))


def table(first: str, rows: Iterator[tuple[str, Schema, bool]]) -> str:
    lines = [f"| {first} | | default | |", "|---|---|---|---|"]
    for name, schema, required in rows:
        cells = (name, kind(schema), default(schema, required), schema.get("description", ""))
        lines.append("| " + " | ".join(cell(each) for each in cells) + " |")
    return "\n".join([*lines, ""])


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    if isinstance(value, dict) and value:
        return "see schema"
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def kind(schema: Schema) -> str:
    """What a value may be, in words."""
    limits = [form.format(schema[name]) for name, form in LIMITS.items() if name in schema]
    return ", ".join([plain(schema), *limits])


def plain(schema: Schema) -> str:
    match schema:
        case {"$ref": str(ref)}:
            name = ref.rpartition("/")[2]
            return f"[{name}](#{anchor(name)})"
        case {"anyOf": options} | {"oneOf": options} | {"allOf": options}:
            return " or ".join(dict.fromkeys(map(kind, options)))
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": values}:
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"type": "array", "prefixItems": items}:
            return f"list of {', '.join(map(kind, items))}"
        case {"type": "array", "items": items} if items:
            return f"list of {kind(items)}"
        case {"type": "object", "additionalProperties": dict() as values} if values:
            return f"object of {kind(values)}"
        case {"type": "string", "format": form}:
            return f"string ({form})"
        case {"type": str(name)}:
            return name
    return "any"


def anchor(heading: str) -> str:
    """As code hosts make it."""
    return re.sub(r"[^\w-]", "", heading.lower())
