"""The route that forgets a text."""

from functools import partial

from fastapi import APIRouter

from app.auth.middleware import require_scope
from app.http.dependencies import AppStateDep, ExecutorDep
from app.text_erasure import service
from app.text_erasure.schemas import TextErasureRequest, TextErasureResult

# Who may delete feedback and datasets one by one may delete a text from all of them.
router = APIRouter(
    tags=["feedback"],
    dependencies=[require_scope("feedback:write"), require_scope("datasets:write")],
)


@router.post("/v1/forget")
async def forget_text(
    body: TextErasureRequest, state: AppStateDep, executor: ExecutorDep
) -> TextErasureResult:
    """Forget a text: remove it from kept predictions, feedback, labels and stored responses.

    Only its hash is remembered, so that it is not kept again. The response lists which stored
    datasets have the text, and which models were trained on them: delete these as needed.
    """
    resources = state.resources
    work = partial(
        service.erase_text,
        resources.database,
        resources.store,
        settings=state.settings,
        body=body,
        flush_traffic=state.traffic.flush,
    )
    return await executor.run(work)
