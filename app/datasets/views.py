"""Response bodies of datasets, made from their rows."""

from typing import Any

from app.datasets.schemas import DatasetListItem, DatasetView
from app.datasets.tables import Dataset


def dataset_list_item(dataset: Dataset) -> DatasetListItem:
    return DatasetListItem(**_fields(dataset))


def dataset_view(dataset: Dataset) -> DatasetView:
    profile = dict(dataset.profile)
    diagnosis = profile.pop("diagnosis", None)  # missing in uploads of older versions
    details = {"labels": profile["labels"], "profile": profile, "diagnosis": diagnosis}
    return DatasetView(**{**_fields(dataset), **details})


def _fields(dataset: Dataset) -> dict[str, Any]:
    overview, label_format = dataset.overview, dataset.label_format
    return {
        **{name: getattr(dataset, name) for name in _COPIED_COLUMNS},
        "ref": f"{dataset.name}:{dataset.version}",
        "title": dataset.title or dataset.name,
        "split_column": overview["split_column"],
        "sheet": overview.get("sheet"),
        "task": label_format.task,
        "ordered": label_format.ordered,
        "label_separator": label_format.separator,
        "label_columns": label_format.columns,
        "targets": overview.get("targets"),
        "labels": overview["labels"],
        "label_count": overview["label_count"],
        "findings": overview["findings"],
    }


_COPIED_COLUMNS = (
    frozenset(DatasetListItem.model_fields) & frozenset(Dataset.__mapper__.columns.keys())
) - {
    "split_column",  # the column holds the requested one
    "sheet",
    "title",
}
