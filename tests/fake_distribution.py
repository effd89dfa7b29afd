"""A fake installed package that shadows the real one."""

from collections.abc import Mapping
from pathlib import Path


def install(site: Path, package: str, version: str, files: Mapping[str, bytes]) -> None:
    """Write the files and the record that `importlib.metadata` reads."""
    info = site / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    for name, content in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
