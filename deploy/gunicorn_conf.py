"""How gunicorn runs the web server. ``WEB_CONCURRENCY`` says in how many processes; more than one needs ``REDIS_URL``."""

import json
from pathlib import Path

worker_class = "imagehub.web_worker.WebWorker"

timeout = 60  # seconds for which an event loop may stand still before its process is killed
graceful_timeout = 15  # above the 5 seconds that streams of events are given to end
# Above the 60 seconds for which nginx keeps a connection, so that it never sends into one that closes.
keepalive = 75

# The sign of life of a worker is a touch there, which must not wait for a disk.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True

# Until a worker has loaded the project, and in the parent, gunicorn writes through our formatter too.
logconfig_dict = json.loads(
    (Path(__file__).resolve().parent.parent / "imagehub" / "uvicorn_logging.json").read_text()
) | {"loggers": {"gunicorn.error": {"level": "INFO", "propagate": True}}}
