"""How large a linear model may be."""

MAX_TERMS = 200_000
MAX_TERM = 100  # characters
MAX_WEIGHTS = 4_000_000  # rows x terms: 32 MB, of which a fit needs 25 times as much


def rows_of(labels: int) -> int:
    """Rows of weights for so many labels: two have one, which speaks for the second."""
    return 1 if labels == 2 else labels


def most_terms(labels: int) -> int:
    """Terms that a model of so many labels may have."""
    return min(MAX_TERMS, MAX_WEIGHTS // rows_of(labels))
