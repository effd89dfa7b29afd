"""Tests that compute with the native engine need a compiler; those of `test_build.py` do not."""

import shutil

collect_ignore_glob = [] if shutil.which("g++") else ["test_[!b]*.py", "test_blocks.py"]
