"""The calls of the API about sweeps."""

from typing import Literal

from app.cli.answers import Job, Json
from app.cli.connection import Connection, Pieces, path_of
from app.cli.sweep_answers import Cell, Sweep, SweepListItem, SweepPlan

Order = Literal["pause", "stop", "resume", "retry"]


class SweepCalls(Connection):
    """By name."""

    def start_sweep(self, body: Json) -> Sweep:
        sweep: Sweep = self.create("/v1/sweeps", json=body)
        return sweep

    def plan_sweep(self, body: Json) -> SweepPlan:
        plan: SweepPlan = self.json("POST", "/v1/sweeps", json=body, params={"dry_run": "true"})
        return plan

    def sweep(self, sweep_id: str) -> Sweep:
        sweep: Sweep = self.json("GET", path_of("sweeps", sweep_id))
        return sweep

    def sweeps(self, limit: int, **filters: str | None) -> list[SweepListItem]:
        return list(self.pages("/v1/sweeps", limit, **filters))

    def cells(self, sweep_id: str) -> list[Cell]:
        cells: list[Cell] = self.json("GET", f"{path_of('sweeps', sweep_id)}/cells")
        return cells

    def order_sweep(self, sweep_id: str, order: Order) -> Sweep:
        sweep: Sweep = self.json("POST", f"{path_of('sweeps', sweep_id)}/{order}")
        return sweep

    def extend_sweep(self, sweep_id: str, body: Json) -> Sweep:
        sweep: Sweep = self.json("POST", f"{path_of('sweeps', sweep_id)}/extend", json=body)
        return sweep

    def promote_cell(self, sweep_id: str, body: Json) -> Job:
        """The job that makes the model of a cell."""
        job: Job = self.create(f"{path_of('sweeps', sweep_id)}/promote", json=body)
        return job

    def delete_sweep(self, sweep_id: str) -> None:
        self.request("DELETE", path_of("sweeps", sweep_id))

    def sweep_results(self, sweep_id: str, format: str) -> Pieces:
        """The cells as the bytes of a file."""
        return self.pieces(f"{path_of('sweeps', sweep_id)}/results", format=format)

    def sweep_report(self, sweep_id: str) -> Pieces:
        """The page, as bytes."""
        return self.pieces(f"{path_of('sweeps', sweep_id)}/report")
