"""What is known about the texts of a version, as a sentence."""

from datetime import UTC, datetime

from app.drift.schemas import DriftState, DriftView


def describe_drift(view: DriftView) -> str:
    """Return the state of a version in a sentence or two."""
    check = view.newest_check
    match view.state:
        case DriftState.NOT_KEPT:
            return (
                "Not checked: no texts of traffic are kept to compare with the training texts. "
                "Set LORAWORKS_KEEP_TRAFFIC to `texts`."
            )
        case DriftState.TOO_FEW_TEXTS:
            return (
                f"Not checked yet: {view.new_texts} of the {view.needed_texts} texts that a check "
                "needs are kept."
            )
    assert check is not None  # noqa: S101 - the other states have one
    numbers = f"p = {check.p_value:.3f}, level {check.level:g}, AUC {check.auc:.2f}"
    day = datetime.fromtimestamp(float(check.until), UTC).date().isoformat()
    texts = f"{check.recent_texts} texts until {day}"
    if view.state == DriftState.DRIFT:
        return f"Drift: {texts} differ from the training texts ({numbers})."
    return (
        f"No drift found: {texts} do not differ significantly from the training texts ({numbers})."
    )
