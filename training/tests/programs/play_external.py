"""Stands in for somebody else's trainer: ``play_external.py WAY DATASET OUTPUT NAME RANK``. Prints as sd-scripts does."""

# ruff: noqa: T201 - printing is all that others do

import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
STEPS = 8


def main(way: str, dataset: str, output: str, name: str, rank: str) -> int:
    sys.path.insert(0, str(ROOT))
    from training.tests.weight_headers import write_sd1_adapter

    captions = sorted(path.read_text() for path in Path(dataset).rglob("*.txt"))
    print(f"found {len(captions)} captions", captions, flush=True)
    print("caching latents: 100%|####| 50/50 [00:01<00:00]", flush=True)
    if way == "ignores TERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if way == "fails":
        print("CUDA error in /srv/secret/train.py", file=sys.stderr)
        return 3
    for step in range(1, STEPS + 1):
        bar = f"\rsteps:  {100 * step // STEPS}%|##  | {step}/{STEPS} [00:01<00:00, 9it/s, avr_loss={1 / step:.3f}]"
        os.write(1, bar.encode())
        time.sleep(1 if way in {"is slow", "ignores TERM"} else 0.15)
        if way == "dies" and step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 4 and way != "no result":
            write_sd1_adapter(Path(output) / f"{name}-step00000004.safetensors", rank=int(rank), mark=4)
    if way == "no result":
        return 0
    file = Path(output) / "deep" / f"{name}.safetensors"
    write_sd1_adapter(file, rank=int(rank), mark=9)
    if way == "rubbish":
        file.write_bytes(b"no weights")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
