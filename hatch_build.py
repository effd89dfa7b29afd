"""The metadata of the wheel that depends on where the repository is public.

`repository` under `[tool.hatch.metadata.hooks.custom]` in pyproject.toml is the only place that
names it. All project URLs come from it, and the relative links of README.md, which package indexes
cannot follow, become links to it. While it is empty, the wheel has no URLs, and the long
description has the text of these links without their targets.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = {
    "Homepage": "",
    "Documentation": "/blob/main/docs/index.md",
    "Source": "",
    "Changelog": "/blob/main/CHANGELOG.md",
    "Issues": "/issues",
}
RELATIVE_IMAGE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)")
RELATIVE_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


class CustomMetadataHook(MetadataHookInterface):
    """Fills in `readme` and `urls`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = str(self.config["repository"]).rstrip("/")
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": long_description(readme, repository),
        }
        metadata["urls"] = {name: repository + page for name, page in PAGES.items() if repository}


def long_description(readme: str, repository: str) -> str:
    """Return README.md as a package index can show it."""
    if not repository:
        return RELATIVE_LINK.sub(r"\1", RELATIVE_IMAGE.sub("", readme))
    images = RELATIVE_IMAGE.sub(rf"![\1]({repository}/raw/main/\2)", readme)
    return RELATIVE_LINK.sub(rf"[\1]({repository}/blob/main/\2)", images)
