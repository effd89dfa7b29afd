"""The bill of materials of the image is valid and names everything that the image installs."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.contracts import image_sbom
from tests.contracts.image_lock import TORCH_LOCK, locked

Json = dict[str, Any]


@pytest.fixture(scope="module")
def text() -> str:
    return JsonV1Dot6(image_sbom.build()).output_as_string()


@pytest.fixture(scope="module")
def components(text: str) -> Mapping[str, Json]:
    return {each["name"]: each for each in json.loads(text)["components"]}


def test_bill_of_materials_is_valid_cyclonedx(text: str) -> None:
    assert json.loads(text)["specVersion"] == "1.6"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_every_locked_package_is_named_with_version_address_and_hash(
    components: Mapping[str, Json],
) -> None:
    for name, (version, sha256) in (locked() | locked(TORCH_LOCK)).items():
        component = components[name]
        assert component["version"] == version
        assert component["purl"] == f"pkg:pypi/{name}@{version}"
        assert component["hashes"] == [{"alg": "SHA-256", "content": sha256}]


def test_base_image_is_named_and_nothing_else(components: Mapping[str, Json]) -> None:
    assert components.keys() == locked().keys() | locked(TORCH_LOCK).keys() | {"python"}
    name, tag, digest = image_sbom.base_image()
    assert components["python"]["purl"] == f"pkg:docker/{name}@sha256:{digest}?tag={tag}"


def test_everything_is_reached_from_the_image(text: str) -> None:
    bom = json.loads(text)
    below = {each["ref"]: each.get("dependsOn", []) for each in bom["dependencies"]}
    reached, waiting = set(), [bom["metadata"]["component"]["bom-ref"]]
    while waiting:
        if (ref := waiting.pop()) not in reached:
            reached.add(ref)
            waiting += below[ref]
    assert reached == below.keys()
    assert len(reached) == 1 + len(bom["components"])


def test_same_content_gives_the_same_bill_but_for_its_time(text: str) -> None:
    first, second = json.loads(text), json.loads(JsonV1Dot6(image_sbom.build()).output_as_string())
    for bom in (first, second):
        bom["metadata"].pop("timestamp")
    assert first == second
