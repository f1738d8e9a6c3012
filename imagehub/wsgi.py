"""Django's synchronous side, for WSGI servers and for ``imagehub.asgi``."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagehub.settings")

application = get_wsgi_application()
