"""``python -m bench [names] [--quick]``: run the benches and print one table."""

import argparse
import importlib
import signal
import tempfile
import traceback
from pathlib import Path

from bench.machine import Moment
from bench.report import Figure, print_table
from bench.setting import Setting

BENCHES = (
    "throughput",
    "gap",
    "stacks",
    "one_process_per_image",
    "submissions",
    "queue",
    "sets",
    "restart",
    "request_overhead",
    "web_memory",
    "web_server",
    "config_read",
    "uploads",
    "archive",
    "library",
    "cockpit",
    "training",
    "scraping",
    "purges",
)


def main() -> int:
    """Run the benches that were named, or all; return 1 only when one of them broke."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"which: {', '.join(BENCHES)} (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: shows that all works, proves nothing"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHES:
            parser.error(f"there is no bench {name!r}; there are {', '.join(BENCHES)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything started is ended
    figures: list[Figure] = []
    is_broken = False
    start = Moment()
    with tempfile.TemporaryDirectory(prefix="imagehub-bench-", ignore_cleanup_errors=True) as scratch:
        setting = Setting(quick=options.quick, scratch=Path(scratch))
        for name in options.names or BENCHES:
            print(f"== {name}", flush=True)
            before = Moment()
            try:
                found = importlib.import_module(f"bench.{name}").run(setting)
            except Exception:  # noqa: BLE001 - the other benches still have something to say
                traceback.print_exc()
                is_broken = True
                found = [Figure(name, "broke; the traceback stands above", "-")]
            figures += found
            print(f"   {before.until(Moment())}", flush=True)
    print()
    print_table(figures)
    print(f"\nThe machine from start to end: {start.until(Moment())}.")
    if options.quick:
        print("--quick: too few rounds to judge by.")
    return 1 if is_broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
