"""The policy of this installation, from the settings and the configuration."""

from typing import TypedDict

from django.conf import settings

from imagehub.config import get_config
from imagehub.egress.policy import Policy


class PolicyValues(TypedDict):
    """The arguments of :meth:`Policy.read`, as they are written into what a child program is told."""

    allow_private: list[str]
    own_hosts: list[str]
    ports: list[int]


def policy_values() -> PolicyValues:
    """Return what makes the policy of this installation: plain values, that child programs are given by their parents."""
    return {
        "allow_private": list(settings.SCRAPING_ALLOW_PRIVATE),
        "own_hosts": list(settings.ALLOWED_HOSTS),
        "ports": list(get_config().egress.ports),
    }


def egress_policy() -> Policy:
    """Return what this server may reach for others."""
    return Policy.read(**policy_values())
