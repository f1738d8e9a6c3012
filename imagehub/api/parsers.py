from rest_framework.parsers import JSONParser  # noqa: F401
