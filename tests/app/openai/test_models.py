"""Models in the OpenAI API, by the unmodified client."""

from uuid import UUID

import pytest
from openai import APIStatusError, ConflictError, NotFoundError, OpenAI

from app.database.engines import Database
from app.openai import ids
from app.registry import service
from tests.app.openai.conftest import RequestCounter, job_of
from tests.app.openai.fine_tunings import finish, upload_examples
from tests.app.serving.conftest import Publish
from tests.slow import slow_but


def listed(client: OpenAI) -> list[str]:
    return [model.id for model in client.models.list()]


def test_empty_list(sdk: OpenAI, counter: RequestCounter) -> None:
    assert listed(sdk) == []
    assert counter.requests == 1  # the list has no pages


def test_every_listed_model_can_be_called_by_its_name(sdk: OpenAI, publish: Publish) -> None:
    publish("sentiment")
    publish("sentiment", promote=False)
    publish("spam", promote=False)
    publish("spam", promote=False)
    assert listed(sdk) == ["spam:2", "sentiment"]
    for model in sdk.models.list():
        got = sdk.models.retrieve(model.id)
        assert (got.id, got.object, got.owned_by) == (model.id, "model", "loraworks")
        assert type(got.created) is int
        assert got.created > 1_700_000_000


def test_models_of_jobs_are_listed_by_the_names_that_their_jobs_give(
    sdk: OpenAI, database: Database
) -> None:
    file = upload_examples(sdk)
    jobs = [
        sdk.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file, suffix=suffix)
        for suffix in ("mails", None)
    ]
    assert listed(sdk) == []
    for job in jobs:
        finish(database, job.id)
    names = [sdk.fine_tuning.jobs.retrieve(job.id).fine_tuned_model for job in jobs]
    assert listed(sdk) == [*reversed(names), "films:2"]
    for name in names:
        assert name is not None
        assert sdk.models.retrieve(name).id == name
    assert names[0] is not None
    sdk.models.delete(names[0])
    assert listed(sdk) == [names[1], "films:2"]


@pytest.mark.parametrize("suffix", slow_but(["spam", None], "spam"))
@pytest.mark.parametrize("base", ["minilm-l6", "org/name", "sentiment:3"])
def test_model_of_a_job(
    sdk: OpenAI, publish: Publish, database: Database, base: str, suffix: str | None
) -> None:
    publish(promote=False)
    name = ids.model_name(job_of(database), base=base, suffix=suffix)
    assert sdk.models.retrieve(name).id == name
    assert sdk.models.delete(name).deleted
    with pytest.raises(NotFoundError) as raised:
        sdk.models.retrieve(name)
    assert raised.value.code == "model_not_found"
    assert listed(sdk) == []


def test_name_of_a_job_with_two_versions_is_the_first(
    sdk: OpenAI, publish: Publish, database: Database
) -> None:
    publish(promote=False)
    publish(promote=False)
    with database.read() as session:
        found = [
            service.resolve_model(
                session, ids.model_name(job_of(database, number), base="b", suffix="")
            ).ref
            for number in (1, 2)
        ]
    assert found == ["sentiment:1", "sentiment:2"]


@pytest.mark.parametrize("name", ["sentiment:1", "sentiment@staging", "sentiment"])
def test_delete(sdk: OpenAI, publish: Publish, database: Database, name: str) -> None:
    publish(promote=False)
    publish("other")
    if "@" in name:
        with database.write() as session:
            service.move_alias(session, name="sentiment", alias="staging", number=1)
        with pytest.raises(ConflictError, match="staging") as raised:
            sdk.models.delete(name)
        assert raised.value.code == "version_in_use"
        return
    deleted = sdk.models.delete(name)
    assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
    assert listed(sdk) == ["other"]


def test_model_in_production_is_not_deleted(
    sdk: OpenAI, publish: Publish, database: Database, counter: RequestCounter
) -> None:
    publish()
    name = ids.model_name(job_of(database), base="minilm-l6", suffix="spam")
    for each in ("sentiment", "sentiment:1", name):
        with pytest.raises(ConflictError, match="production"):
            sdk.models.delete(each)
    assert counter.requests == 3  # the client repeats none
    assert listed(sdk) == ["sentiment"]


UNKNOWN = [
    *("gpt-4o-mini", "gpt-4.1", "text/davinci", "sentiment:9", "other", "sentiment@beta"),
    *("ft:gpt-4o-mini-2024-07-18:acme::9AbC", "ft:", "ft:a:b:c:d", "a\x00b", "ü", " ", "a:b:c"),
    f"ft:minilm-l6:loraworks:spam:{UUID(int=1).hex}",
    f"ft:{UUID(int=1).hex}",
    "x" * 5000,
]


@pytest.mark.parametrize(
    "name", slow_but(UNKNOWN, "text/davinci", "sentiment:9", "ft:", "a\x00b", UNKNOWN[-3])
)
def test_unknown_model_is_404(sdk: OpenAI, publish: Publish, name: str) -> None:
    publish()
    for call in (sdk.models.retrieve, sdk.models.delete):
        with pytest.raises(NotFoundError) as raised:
            call(name)
        assert raised.value.code == "model_not_found"
        assert len(raised.value.message) < 500


def test_model_without_production_has_no_bare_name(sdk: OpenAI, publish: Publish) -> None:
    publish(promote=False)
    with pytest.raises(APIStatusError) as raised:
        sdk.models.retrieve("sentiment")
    assert (raised.value.status_code, raised.value.code) == (404, "no_model_promoted")
