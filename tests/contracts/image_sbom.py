"""build/sbom.json: what the container image installs by default, as CycloneDX 1.6.

`make sbom` writes it from the locks and the Dockerfile: every package with the sha256 of its wheel,
and the base image with its digest. What is in that image already (Python, pip, the packages of
Debian) is left out. With a build of torch from another index, torch has another hash, and what only
the default build needs is not there.
"""

import re
from importlib.metadata import distributions
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lora_core import __version__
from tests.contracts.image_lock import (
    DOCKERFILE,
    ROOT,
    TORCH_LOCK,
    dependencies,
    locked,
    required_by,
    samples,
)

SBOM = ROOT / "build" / "sbom.json"


def base_image() -> tuple[str, str, str]:
    """Name, tag and sha256 of the image that ours is built on."""
    [(name, tag, digest)] = re.findall(  # the stage for the compiler has a name after it
        r"^FROM (\w+):(\S+)@sha256:([0-9a-f]{64})$", DOCKERFILE, re.MULTILINE
    )
    return name, tag, digest


def build() -> Bom:
    """The bill of materials, with the dependencies between packages."""
    python_packages = locked() | locked(TORCH_LOCK)
    packages = {name: _package(name, *facts) for name, facts in python_packages.items()}
    image = Component(
        name="loraworks", version=__version__, type=ComponentType.CONTAINER, bom_ref="loraworks"
    )
    base = _base_image()
    bom = Bom(
        components=[base, *packages.values()],
        metadata=BomMetaData(component=image),
        serial_number=uuid5(NAMESPACE_URL, f"{DOCKERFILE}{python_packages}"),  # of its content
    )
    direct = {str(canonicalize_name(each.name)): each for each in map(Requirement, dependencies())}
    data = [each.partition("==")[0] for each in samples()]  # without what these packages require
    bom.register_dependency(image, [base, *(packages[name] for name in (*direct, *data))])
    # What only the default build of torch needs may not be installed here: torch needs all of it.
    of_torch = locked(TORCH_LOCK).keys() - {"torch"}
    for name in packages.keys() - data - of_torch:
        required = required_by(direct.get(name, Requirement(name)))
        names: set[str] = {canonicalize_name(each.name) for each in required}
        names = (names | of_torch if name == "torch" else names) & packages.keys()
        bom.register_dependency(packages[name], [packages[each] for each in names])
    return bom


def _package(name: str, version: str, sha256: str) -> Component:
    licenses = [  # of what is installed here
        each
        for found in distributions(name=name)
        for each in found.metadata.get_all("License-Expression", [])
    ]
    address = PackageURL("pypi", name=name, version=version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(address),
        purl=address,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        licenses=map(LicenseFactory().make_from_string, licenses),
    )


def _base_image() -> Component:
    name, tag, digest = base_image()
    address = PackageURL("docker", name=name, version=f"sha256:{digest}", qualifiers={"tag": tag})
    return Component(
        name=name,
        version=tag,
        type=ComponentType.CONTAINER,
        bom_ref=str(address),
        purl=address,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def main() -> None:
    """Write the bill of materials."""
    SBOM.parent.mkdir(exist_ok=True)
    text = JsonV1Dot6(build()).output_as_string(indent=2)
    SBOM.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
