"""What comes into an image, and what must not."""

import os
import re
import shutil
import subprocess
import time

import pytest
from django.conf import settings

from deploy.shipped import DEPLOY, Site, health_check

pytestmark = pytest.mark.once

SECRETS = (".env", "deploy/docker/.env", "deploy/docker/certificates/privkey.pem")


def copied() -> set[str]:
    """Return what the Dockerfile copies from the checkout."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    lines = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def test_no_secret_of_a_checkout_is_copied_into_an_image():
    for secret in SECRETS:
        assert not [source for source in copied() if source == "." or f"{secret}/".startswith(f"{source}/")]


def test_all_of_the_application_is_copied():
    apps = {app.partition(".")[0] for app in settings.INSTALLED_APPS}
    ours = {app for app in apps if (settings.BASE_DIR / app).is_dir()}

    assert len(ours) >= 5
    assert ours | {"templates", "manage.py", "config.yaml", "deploy/gunicorn_conf.py"} <= copied()
    assert [source for source in copied() if not (settings.BASE_DIR / source).exists()] == []


@pytest.mark.skipif(
    shutil.which("git") is None or not (settings.BASE_DIR / ".git").exists(), reason="no checkout of git"
)
def test_git_takes_no_secret_in():
    argv = ["git", "check-ignore", "--no-index", *SECRETS]

    said = subprocess.run(argv, cwd=settings.BASE_DIR, capture_output=True, text=True, check=False)

    assert said.stdout.split() == list(SECRETS)


def test_a_cluster_whose_heartbeat_stands_still_is_not_well(tmp_path):
    heartbeat = tmp_path / "heartbeat"
    argv = health_check("worker", Site(tmp_path, 0, 0, 0))

    def is_well() -> bool:
        env = os.environ | {"IMAGEHUB_HEARTBEAT": str(heartbeat)}
        return subprocess.run(argv, env=env, capture_output=True, check=False).returncode == 0

    assert not is_well()
    heartbeat.touch()
    assert is_well()
    os.utime(heartbeat, (time.time() - 200,) * 2)
    assert not is_well()
