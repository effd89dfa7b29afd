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
        self._away: AppError | None = None  # what the store said last

    def doubt_store(self) -> None:
        """A job has just met something that cannot be used."""
        self._doubted = True

    def look(self) -> AppError | None:
        """The same as `trouble`, but asks a store that is in doubt, which may take its time."""
        if self._doubted:
            try:
                self._resources.store.check()
            except AppError as error:
                self._away = error
            else:
                self._doubted, self._away = False, None
        return self.trouble()

    def trouble(self) -> AppError | None:
        """Why no job could run here now, as far as is known."""
        return workplace.trouble(self._resources.settings) or self._away
