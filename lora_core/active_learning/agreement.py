"""How far two annotators agree beyond chance."""

from collections.abc import Sequence

import numpy as np

from lora_core.active_learning.label_suggestions import Label, require_label_set, require_number


def cohen_kappa(pairs: Sequence[tuple[Label, Label]]) -> float | None:
    """Return Cohen's kappa of pairs of labels of the same text; None if it is not defined.

    That is so without pairs, and if both annotators gave all texts the same one label. Of sets of
    labels it is the mean of the kappas of the labels. Of numbers it is the kappa with quadratic
    weights, which is Lin's concordance coefficient.

    (Cohen 1960, Educational and Psychological Measurement 20, 37-46.)
    """
    if not pairs:
        return None
    first, second = zip(*pairs, strict=True)
    if isinstance(first[0], str):
        return _kappa(first, second)
    if isinstance(first[0], frozenset):
        sets = [[require_label_set(each) for each in side] for side in (first, second)]
        names = sorted(frozenset[str]().union(*sets[0], *sets[1]))
        kappas = [
            _kappa(*([str(name in each) for each in side] for side in sets)) for name in names
        ]
        defined = [kappa for kappa in kappas if kappa is not None]
        return float(np.mean(defined)) if defined else None
    a, b = (np.array([require_number(each) for each in side]) for side in (first, second))
    if not np.ptp(np.concatenate([a, b])):
        return None  # the variance of equal numbers may be a rounding error instead of 0
    disagreement = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    return float(2 * covariance / disagreement) if disagreement else None


def _kappa(first: Sequence[Label], second: Sequence[Label]) -> float | None:
    names = {name: i for i, name in enumerate(sorted({*map(str, (*first, *second))}))}
    a, b = (np.array([names[str(each)] for each in side]) for side in (first, second))
    shares = [np.bincount(each, minlength=len(names)) / len(a) for each in (a, b)]
    by_chance = float(shares[0] @ shares[1])
    if len(names) == 1:
        return None
    return float(((a == b).mean() - by_chance) / (1 - by_chance))
