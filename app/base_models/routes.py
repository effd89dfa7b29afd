"""Route of base models: check one."""

from functools import partial

from fastapi import APIRouter

from app.auth.middleware import require_scope
from app.base_models import service
from app.base_models.schemas import BaseCheckRequest
from app.http.dependencies import DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from lora_core.results import BaseModelReport

router = APIRouter(prefix="/v1/bases", tags=["bases"])


@router.post("/check", dependencies=[require_scope("jobs:write")])
async def check_base(
    body: BaseCheckRequest,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    executor: ExecutorDep,
) -> BaseModelReport:
    """Try a base model on the host of the API, before anything is trained.

    The report says what a job would adapt, whether the model computes the same in a batch as alone
    and merged as unmerged, and how fast and large it is: in one thread, in a sandbox without
    network. A hub model must be on this host already.
    """
    work = partial(
        service.check_base_in_subprocess,
        body.base,
        body.base_revision,
        database=database,
        store=store,
        settings=settings,
    )
    return await executor.run_base_check(work)
