"""Limits on what is read of an untrusted file, checked before memory is allocated."""

MAX_ROWS = 1_000_000
MAX_COLUMNS = 512
MAX_CELL_CHARACTERS = 1_000_000  # the longest IMDB review has 13,704
MAX_LINE_CHARACTERS = 16_000_000
MAX_BYTES = 500_000_000  # of a file, and of the texts and labels read from it
MAX_LABELS = 1_000
MAX_LABEL_CHARACTERS = 256
