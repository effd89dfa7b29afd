"""A fork server whose processes run a script of actions, without importing torch.

    python scripted_fork_server.py ACTION...

The worker starts it in place of `python -m lora_core.fork_server`.
"""

import importlib
import os
import runpy
import socket
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).with_name("scripted_child.py")  # importing `scripted` takes a second
UNUSED = "lora_core.__main__"  # the commands, which take most of the start

if __name__ == "__main__":
    sys.modules[UNUSED] = ModuleType(UNUSED)
    vars(sys.modules[UNUSED])["main_and_exit"] = sys.exit
    fork_server = importlib.import_module("lora_core.fork_server")
    with socket.socket(fileno=os.dup(0)) as connection:
        request = fork_server.fork_for_each_request(connection)
    if request is not None:
        sys.argv = [str(SCRIPT), *sys.argv[1:], *request.arguments]
        status = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as error:
            status = int(error.code or 0)
        sys.stdout.flush()
        os._exit(status)  # like `lora_core.__main__`
