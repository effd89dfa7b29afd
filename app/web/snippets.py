"""What a form would send, as calls that can be copied into a shell."""

import json
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote

from fastapi import Request

from app.database.base import JsonObject
from app.web import sweep_form

OWN_PORT = 8000  # where the command line looks by itself


def curl(request: Request, method: str, path: str, body: JsonObject) -> str:
    """The call itself."""
    lines = [f"curl -X {method} {quote(_origin(request) + path)}"]
    if request.scope.get("state", {}).get("signed_in"):
        lines.append('-H "Authorization: Bearer $LORAWORKS_API_KEY"')
    sent = json.dumps(body, ensure_ascii=False)
    lines += ["-H 'Content-Type: application/json'", f"-d {quote(sent)}"]
    return " \\\n  ".join(lines)


def sweep_start(request: Request, typed: Mapping[str, str], body: JsonObject) -> str:
    """`loraworks sweep start …`, or a file for what no option says."""
    command = f"loraworks sweep start{_here(request)}"
    source = body["job"].get("data", {}).get("source")
    if "result" in body["job"] or isinstance(source, dict):
        told = json.dumps(body, ensure_ascii=False)
        return f"{command} --file sweep.json\n# sweep.json: {told}"
    return " \\\n  ".join([command, *_options(typed)])


def sweep_extend(
    request: Request, sweep_id: object, typed: Mapping[str, str], fields: Sequence[str]
) -> str:
    """`loraworks sweep extend …`"""
    options = list(_over(typed, fields))
    if cells := typed.get("cells", "").strip():
        options.append(f"--cells {quote(cells)}")
    return " \\\n  ".join([f"loraworks sweep extend{_here(request)} {sweep_id}", *options])


def _options(typed: Mapping[str, str]) -> Iterator[str]:
    for place, text in sweep_form.said(typed).items():
        if sweep_form.DEFAULTS.get(place) != text:
            yield f"{sweep_form.OPTIONS[place]} {quote(text)}"
    yield from _over(typed, sweep_form.OVER)


def _over(typed: Mapping[str, str], fields: Sequence[str]) -> Iterator[str]:
    for name, text, _ in sweep_form.over(typed, fields):
        short = name.rpartition(".")[2].replace("_", "-") if name in sweep_form.OVER else name
        yield f"--over {quote(f'{short}={text}')}"


def _origin(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _here(request: Request) -> str:
    url = request.base_url
    own = url.hostname == "127.0.0.1" and url.port == OWN_PORT
    return "" if own else f" --url {quote(_origin(request))}"
