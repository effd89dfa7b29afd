"""What a process of the service writes is for its own user alone."""

import os


def keep_private() -> None:
    """Whatever the mode of the data folder: its operator may have made it open to others."""
    os.umask(0o077)
