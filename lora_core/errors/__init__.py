"""Every way a run can fail, one class per cause, one module per kind.

    LoraCoreError
    ├── spec.SpecError          the description of the run does not fit the base model
    ├── base.BaseError          the base model cannot be used
    ├── data.DataError          the texts and labels cannot be used
    ├── training.TrainingError  the run stopped on the way
    ├── artifact.ArtifactError  a finished model cannot be used, or a text cannot be answered
    ├── export.ExportError      a model cannot be written in the format of another program
    └── adapter.AdapterError    an adapter of another program cannot be taken in

A class holds a stable `code` and a message with named gaps; the caller gives the data that fills
them. `detail` keeps that data, so that a service can show it without parsing prose.
"""

from typing import Any, ClassVar


class LoraCoreError(Exception):
    """A cause that a user can understand and act on."""

    code: ClassVar[str]
    message: ClassVar[str]

    def __init__(self, **detail: Any) -> None:
        self.detail = detail
        super().__init__(self.message.format(**detail))
