"""A guard that will be killed: starts a silent child, tells its pid, and watches it."""

import sys
from pathlib import Path

from imagehub.jobs.child import Child, ChildLimits, watch
from imagehub.jobs.run_log import RunLog

folder = Path(sys.argv[1])
program = Path(__file__).with_name("misbehave.py")
child = Child(
    [sys.executable, str(program), "stubborn"], cwd=folder, log=RunLog(folder / "run.log", limit_bytes=10_000)
)
child.start()
watch(
    child,
    limits=ChildLimits(wall_seconds=60, idle_seconds=60, grace_seconds=1),
    on_event=lambda _: print(child.pid, flush=True),  # noqa: T201
    should_stop=lambda: False,
)
