"""The locks contain everything that the image needs, at the pinned versions."""

from lora_core.samples.fetch import SAMPLES
from tests.contracts.image_lock import (
    DOCKERFILE,
    LEFT_OUT,
    TORCH_LOCK,
    locked,
    needed,
    samples,
    torch_version,
)
from tests.contracts.test_versions import pins


def test_lock_contains_exactly_the_dependencies() -> None:
    assert locked().keys() == needed() | {each.partition("==")[0] for each in samples()}
    assert not locked().keys() & LEFT_OUT


def test_lock_has_the_pinned_versions() -> None:
    wanted = {name: str(version) for name, version in pins().items()}
    wanted |= dict(each.split("==", 1) for each in samples())
    assert locked().keys() - wanted.keys() <= {"setuptools"}  # of torch; a freeze leaves it out
    for name, (version, _) in locked().items():
        assert version == wanted.get(name, version), name


def test_lock_of_torch_has_the_build_for_gpus_and_what_it_alone_needs() -> None:
    of_torch = locked(TORCH_LOCK)
    assert of_torch["torch"][0] == torch_version()
    assert of_torch.keys() > {"torch", "triton", "nvidia-cudnn-cu13", "nvidia-cublas"}
    assert not of_torch.keys() & locked().keys()


def test_image_installs_dependencies_by_hash() -> None:
    installs = [
        line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if "pip install" in line
    ]
    assert len(installs) == 3
    rest, torch, package = installs  # torch last, so that it brings nothing of the lock unchecked
    assert "--require-hashes --no-deps --only-binary :all: -r /src/requirements.lock" in rest
    from_index, by_default = torch.split("else")
    assert '--no-deps --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}"' in from_index
    # Not --no-deps: pip fails if torch needs something that is neither in this lock nor installed.
    assert "--require-hashes --only-binary :all: -r /src/requirements-torch.lock" in by_default
    assert "--no-build-isolation --no-deps /src" in package  # with the hatchling of the lock
    assert "hatchling" in locked()


def test_fetched_samples_are_the_locked_ones() -> None:
    """`loraworks samples fetch` and the image read the same wheels."""
    for sample in SAMPLES:
        assert locked()[sample.name] == (sample.version, sample.sha256)
        assert f"{sample.name}=={sample.version}" in samples()
