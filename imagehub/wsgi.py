"""Django's synchronous side, for WSGI servers and for ``imagehub.asgi``."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagehub.settings")

application = get_wsgi_application()

from imagehub.accounts.staff_list import withdraw_before_first_request  # noqa: E402 - the apps are ready only now

withdraw_before_first_request()
