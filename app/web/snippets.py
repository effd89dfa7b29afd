"""Shell snippets, curl and command line, that do what a form would do."""

import json
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote

from fastapi import Request

from app.database.base import JsonObject
from app.web import sweep_form

DEFAULT_PORT = 8000  # the command line's default on 127.0.0.1


def curl(request: Request, method: str, path: str, body: JsonObject) -> str:
    """Return the API call as a curl command."""
    lines = [f"curl -X {method} {quote(_base_url(request) + path)}"]
    if request.scope.get("state", {}).get("signed_in"):
        lines.append('-H "Authorization: Bearer $LORAWORKS_API_KEY"')
    data = json.dumps(body, ensure_ascii=False)
    lines += ["-H 'Content-Type: application/json'", f"-d {quote(data)}"]
    return " \\\n  ".join(lines)


def sweep_start(request: Request, values: Mapping[str, str], body: JsonObject) -> str:
    """Return `loraworks sweep start …`; with a file if an option is missing for some field."""
    command = f"loraworks sweep start{_url_option(request)}"
    source = body["job"].get("data", {}).get("source")
    if "result" in body["job"] or isinstance(source, dict):
        content = json.dumps(body, ensure_ascii=False)
        return f"{command} --file sweep.json\n# sweep.json: {content}"
    return " \\\n  ".join([command, *_options(values)])


def sweep_extend(
    request: Request, sweep_id: object, values: Mapping[str, str], fields: Sequence[str]
) -> str:
    """Return `loraworks sweep extend …`."""
    options = list(_over_options(values, fields))
    if trial_count := values.get("cells", "").strip():
        options.append(f"--cells {quote(trial_count)}")
    return " \\\n  ".join([f"loraworks sweep extend{_url_option(request)} {sweep_id}", *options])


def _options(values: Mapping[str, str]) -> Iterator[str]:
    for path, text in sweep_form.fixed_values(values).items():
        if sweep_form.DEFAULTS.get(path) != text:
            yield f"{sweep_form.OPTIONS[path]} {quote(text)}"
    yield from _over_options(values, sweep_form.SPACE_FIELDS)


def _over_options(values: Mapping[str, str], fields: Sequence[str]) -> Iterator[str]:
    for name, text, _ in sweep_form.space_values(values, fields):
        short = name.rpartition(".")[2].replace("_", "-")
        option = short if name in sweep_form.SPACE_FIELDS else name
        yield f"--over {quote(f'{option}={text}')}"


def _base_url(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _url_option(request: Request) -> str:
    url = request.base_url
    is_default = url.hostname == "127.0.0.1" and url.port == DEFAULT_PORT
    return "" if is_default else f" --url {quote(_base_url(request))}"
