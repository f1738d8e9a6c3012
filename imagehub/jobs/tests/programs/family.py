"""A child with a child: ``python family.py WAY``. Reports the grandchild's pid as an event.

``waits``     the child stays, the grandchild sleeps
``stubborn``  the child stays, neither minds SIGTERM
``leaves``    the child exits at once; the grandchild keeps all pipes open and does not mind SIGTERM
``escapes``   the same, but the grandchild goes into a session of its own
"""

import os
import signal
import sys
import time

from imagehub.jobs.protocol import Channel

way = sys.argv[1]
channel = Channel.from_environment()
if way == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
reading, writing = os.pipe()
grandchild = os.fork()
if grandchild == 0:
    if way != "waits":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if way == "escapes":
        os.setsid()
    os.write(writing, b"!")
    time.sleep(60)
    os._exit(0)
os.read(reading, 1)
channel.emit("started", grandchild=grandchild)
if way not in ("leaves", "escapes"):
    time.sleep(60)
