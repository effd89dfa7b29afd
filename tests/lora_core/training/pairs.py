"""A run in two real processes, each with the environment that `torchrun` would give it."""

from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from lora_core.events import Event
from tests.lora_core.training.processes import Attempts

LORA = {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]}
PLAIN = {"batch_size": 16, "head_dropout": 0.0}
RANDOM = {
    "epochs": 2, "batch_size": 16, "micro_batch_tokens": 64,
    "encoder_dropout": 0.1, "head_dropout": 0.2,
}  # fmt: skip
ODD = {"train_size": 81}  # in updates of 16: the last of an epoch is one text, for one process


def open_store() -> TCPStore:
    """The rendezvous of the processes, on a free port."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def environments(store: TCPStore) -> list[dict[str, str]]:
    """The environments of the two processes."""
    return [
        {
            "RANK": str(rank), "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        for rank in range(2)
    ]  # fmt: skip


@dataclass
class Pair(Attempts):
    """A run in two processes, which write their events to one file."""

    children: list[BaseProcess] = field(default_factory=list)
    store: TCPStore = field(default_factory=open_store)

    def launch(self, arguments: list[str], environment: dict[str, str]) -> BaseProcess:
        """Start both; returns the first."""
        self.store = open_store()
        launch = super().launch
        self.children = [launch(arguments, environment | each) for each in environments(self.store)]
        return self.children[0]

    def both(self, fault: str = "") -> tuple[list[int | None], list[Event]]:
        """Run an attempt to its end; returns exit statuses and events."""
        self.start(fault)
        return self.left()

    def left(self) -> tuple[list[int | None], list[Event]]:
        """The same for a started attempt."""
        for child in self.children:
            child.join(60)
            child.kill()  # otherwise a waiting process would wait forever
        _, events = self.end(self.children[0])
        return [child.exitcode for child in self.children], events


def saved(events: list[Event]) -> list[int]:
    """Steps of the checkpoints."""
    return [event.step for event in events if event.event == "checkpoint"]


def failures(events: list[Event]) -> list[str]:
    """Codes of the failures."""
    return [event.code for event in events if event.event == "failed"]
