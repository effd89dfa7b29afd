"""Find Chromium on this machine. On Debian as root, install it if it is missing.

`python -m tests.browser.chromium` prints its path.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium")


def locate() -> str:
    """Return the path of Chromium; exit with instructions if it cannot be installed."""
    path = _find_on_path()
    if path is None and _install():
        path = _find_on_path()
    if path is None:
        sys.exit(
            f"No Chromium is on PATH (looked for {', '.join(NAMES)}). Install one, on Debian or "
            f"Ubuntu as root: apt-get update && {' '.join(INSTALL)}"
        )
    return path


def _find_on_path() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


def _install() -> bool:
    """Install Debian's package; return whether that succeeded."""
    apt_get = shutil.which(INSTALL[0])
    if apt_get is None or os.geteuid() != 0:
        return False
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (("update", "--quiet"), INSTALL[1:]):
        if subprocess.run(
            [apt_get, *arguments], env=environment, stdout=sys.stderr, check=False
        ).returncode:
            return False
    return True


if __name__ == "__main__":
    print(locate())  # noqa: T201
