"""Response bodies of drift checks, made from their rows."""

from collections.abc import Sequence
from typing import Any

from app.drift.schemas import DifferentText, DriftCheckDetail, DriftCheckFailure, DriftCheckView
from app.drift.tables import DriftCheck, DriftClaim
from app.traffic.repository import KeptPredictionKey, format_prediction_id
from app.traffic.tables import KeptPrediction


def drift_check_view(check: DriftCheck) -> DriftCheckView:
    """Return a check without texts."""
    return DriftCheckView(**_fields(check))


def drift_check_with_texts_view(
    check: DriftCheck, texts: Sequence[KeptPrediction]
) -> DriftCheckDetail:
    """Return a check with the texts that differ most."""
    different = [
        DifferentText(
            prediction_id=format_prediction_id(
                KeptPredictionKey(each.prediction_id, each.position)
            ),
            text=each.text,
            text_pair=each.text_pair,
            predicted_at=each.created_at,
        )
        for each in texts
        if each.text is not None
    ]
    return DriftCheckDetail(**_fields(check), most_different=different)


def drift_check_failure_view(claim: DriftClaim | None) -> DriftCheckFailure | None:
    """Return why the last automatic check failed, if it did."""
    if claim is None or claim.error_code is None or claim.error_message is None:
        return None
    return DriftCheckFailure(
        code=claim.error_code, message=claim.error_message, retry_at=claim.until
    )


def _fields(check: DriftCheck) -> dict[str, Any]:
    return {
        "id": check.id,
        "version": check.version_ref,
        "since": check.window_start or None,
        "until": check.window_end,
        "recent_texts": check.recent_texts,
        "training_texts": check.training_texts,
        "p_value": check.p_value,
        "auc": check.auc,
        "level": check.level,
        "alarm": check.alarm,
        "automatic": check.automatic,
        "created_at": check.created_at,
    }
