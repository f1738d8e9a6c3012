"""Loaded by pytest before the settings are: adds the tests' own kind of job and their way to empty the database."""

import os

os.environ["IMAGEHUB_EXTRA_APPS"] = "imagehub.tests,imagehub.jobs.tests.errands"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Playwright's synchronous API runs an event loop in the thread that also asks the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
