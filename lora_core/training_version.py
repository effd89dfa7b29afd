"""What tells results apart that another program would give.

Raise it with a change after which the same description, data and base give other numbers, beyond
the last bits: a sweep takes no result of another version for its own. `tests/golden` forces that.
"""

TRAINING_VERSION = 4
