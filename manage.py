#!/usr/bin/env python3
"""Run an ImageHub command."""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagehub.settings")
    try:
        _ = settings.INSTALLED_APPS  # reads the settings, before any command can do without them
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    execute_from_command_line(sys.argv)
