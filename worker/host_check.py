"""Whether jobs can run on this machine now: its data folder, its disk, and the store."""

from app.errors import AppError
from app.resources import Resources
from worker import workplace


class HostCheck:
    """Shared by the parts of a worker. The store is only asked while there is reason to doubt it:
    with object storage each look is a paid request.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._doubted = False

    def doubt_store(self) -> None:
        """A job has just met a store that cannot be used."""
        self._doubted = True

    def trouble(self) -> AppError | None:
        """Why no job could run here now."""
        found = workplace.trouble(self._resources.settings)
        if found is None and self._doubted:
            try:
                self._resources.store.check()
            except AppError as error:
                return error
            self._doubted = False
        return found
