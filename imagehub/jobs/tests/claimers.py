"""Claiming from many processes at once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

PROCESSES = 8

FORKED = """
import os, sys
import django; django.setup()
program, folder, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(processes):
    if os.fork() == 0:
        with open(f"{folder}/{number}", "w") as sys.stdout:
            exec(program)
        os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(processes)]))
"""
"""Django is set up once: that takes longer than what the processes do."""


def claim_from_many_processes(program: str, process_env: dict[str, str]) -> Counter[str]:
    """Run a program in eight processes at once; return how often each line was printed. All have to end well."""
    with TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", FORKED, program, folder, str(PROCESSES)],
            env=process_env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"},
            timeout=120,
            check=True,
        )
        outputs = list(Path(folder).iterdir())
        assert len(outputs) == PROCESSES
        return Counter(line for output in outputs for line in output.read_text().split())
