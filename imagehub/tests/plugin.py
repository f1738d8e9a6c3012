"""Loaded by pytest before the settings are: adds the app with the tests' own kind of job."""

import os

os.environ["IMAGEHUB_EXTRA_APPS"] = "imagehub.jobs.tests.errands"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Playwright's synchronous API runs an event loop in the thread that also asks the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
