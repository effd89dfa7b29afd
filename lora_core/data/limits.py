"""How much is read of a file, which comes from outside: checked before memory is taken."""

MAX_ROWS = 1_000_000
MAX_COLUMNS = 512
MAX_CELL = 1_000_000  # characters; the longest IMDB review has 13,704
MAX_LINE = 16_000_000  # bytes
MAX_BYTES = 500_000_000  # of a file, and of the texts and labels read from it
MAX_LABELS = 1_000
MAX_LABEL = 256  # characters
