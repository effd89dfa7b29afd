"""docs/reference/settings.md lists every setting.

`UPDATE_DOCS=1 pytest tests/contracts` writes it.
"""

import os
from pathlib import Path

from app.settings import ENV_PREFIX, Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
INTRODUCTION = """# Settings

Read from environment variables when a process starts. Separate list entries with commas. An
empty variable is the same as none, except that it makes a list empty. This table is generated
from `app/settings.py` by `UPDATE_DOCS=1 pytest tests/contracts`.

Other variables: `LORAWORKS_CACHE`, the folder of each host for the samples and for what can be
computed again (default: `~/.cache/loraworks`); `LORAWORKS_URL` and `LORAWORKS_API_KEY`, the
service and the key of the commands; `HF_TOKEN`, `HF_HOME` and `HF_ENDPOINT`, for the hub;
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and `AWS_ENDPOINT_URL`, for a store on
S3; `SSL_CERT_FILE`, certificates of your own.

| Variable | Default | Meaning |
|---|---|---|
"""


def table() -> str:
    lines = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        shown = "" if default in (None, "") else f"`{default}`"
        lines.append(f"| `{ENV_PREFIX}{name.upper()}` | {shown} | {field.description} |\n")
    return INTRODUCTION + "".join(lines)


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_document_matches_the_code() -> None:
    if os.environ.get("UPDATE_DOCS") == "1":
        DOCUMENT.write_text(table(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == table()
