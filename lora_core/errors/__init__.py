"""Errors that the library raises on purpose: one class per cause, one module per area.

    LoraCoreError
    ├── spec.SpecError              the run description does not fit the base model
    ├── base_model.BaseModelError   the base model cannot be used
    ├── data.DataError              the texts and labels cannot be used
    ├── training.TrainingError      the run stopped before it was complete
    ├── artifact.ArtifactError      a trained model cannot be used, or an input cannot be predicted
    ├── export.ExportError          a model cannot be exported to another program's format
    └── adapter.AdapterError        an adapter of another program cannot be imported

Each class has a stable `code`, a `title` (a sentence that is the same every time), and a `message`
template. The caller passes the values for the template; `detail` keeps them, so that a service can
return them without parsing the message.
"""

from typing import Any, ClassVar


class LoraCoreError(Exception):
    """An error that a user can understand and act on."""

    code: ClassVar[str]
    title: ClassVar[str]
    message: ClassVar[str]

    def __init__(self, **detail: Any) -> None:
        self.detail = detail
        super().__init__(self.message.format(**detail))
