"""The settings of ImageHub without its middleware: what its cost is compared with."""

from imagehub.settings import *  # noqa: F403

MIDDLEWARE = ["allauth.account.middleware.AccountMiddleware"]  # allauth does not start without
