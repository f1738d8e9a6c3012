"""Django's own ASGI handler and nothing else: what the shipped server is compared with."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagehub.settings")

application = get_asgi_application()
