"""The Chromium of this machine. As root on Debian it is installed where there is none.

`python -m tests.browser.chromium` prints where it is.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium")


def locate() -> str:
    """Its path. Ends this process with what to do if there is none and none can be installed."""
    found = _on_path()
    if found is None and _installed():
        found = _on_path()
    if found is None:
        sys.exit(
            f"No Chromium is on PATH (looked for {', '.join(NAMES)}). Install one, on Debian or "
            f"Ubuntu as root: apt-get update && {' '.join(INSTALL)}"
        )
    return found


def _on_path() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


def _installed() -> bool:
    """Whether Debian's was installed just now."""
    program = shutil.which(INSTALL[0])
    if program is None or os.geteuid() != 0:
        return False
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (("update", "--quiet"), INSTALL[1:]):
        if subprocess.run([program, *words], env=quiet, stdout=sys.stderr, check=False).returncode:
            return False
    return True


if __name__ == "__main__":
    print(locate())  # noqa: T201
