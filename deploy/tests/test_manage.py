"""``imagehub-manage`` reads the file of the environment as systemd does, and not as a shell."""

import json
import subprocess
import sys

import pytest

from deploy.shipped import DEPLOY

pytestmark = pytest.mark.once

FILE = """# A comment=with a sign
; another=one

DATABASE_URL=postgres://imagehub:p$HOME%20`id`@db:5432/imagehub?sslmode=require&target_session_attrs=any
IMAGEHUB_SECRET_KEY=a$b$(touch made)#;|<>*'x
IMAGEHUB_VAR="/var/lib/image hub"
SENTRY_DSN='https://key@sentry.example.com/1'
IMAGEHUB_EMAIL_FROM=Image Hub <a@example.com> \t
IMAGEHUB_ALERT_EMAILS=
EMAIL_URL=smtp+tls://u:p=w@mail.example.com:587"""

EXPECTED = {
    "DATABASE_URL": "postgres://imagehub:p$HOME%20`id`@db:5432/imagehub?sslmode=require&target_session_attrs=any",
    "IMAGEHUB_SECRET_KEY": "a$b$(touch made)#;|<>*'x",
    "IMAGEHUB_VAR": "/var/lib/image hub",
    "SENTRY_DSN": "https://key@sentry.example.com/1",
    "IMAGEHUB_EMAIL_FROM": "Image Hub <a@example.com>",
    "IMAGEHUB_ALERT_EMAILS": "",
    "EMAIL_URL": "smtp+tls://u:p=w@mail.example.com:587",
}


def test_values_are_taken_as_they_stand(tmp_path):
    (tmp_path / "imagehub.env").write_text(FILE)
    script = (DEPLOY / "systemd" / "imagehub-manage").read_text()
    say = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
    for shipped, here in {
        "/etc/imagehub/imagehub.env": str(tmp_path / "imagehub.env"),
        "setpriv --reuid=imagehub --regid=imagehub --init-groups": "env",  # there is no such user
        "cd /opt/imagehub\n": f"cd {tmp_path}\n",
        "/opt/imagehub/.venv/bin/python /opt/imagehub/manage.py": f"{sys.executable} -c '{say}'",
    }.items():
        assert shipped in script
        script = script.replace(shipped, here)

    said = subprocess.run(
        ["sh", "-c", script, "imagehub-manage", "check", "a b"], capture_output=True, text=True, check=False
    )

    assert said.returncode == 0, said.stderr
    env, arguments = json.loads(said.stdout)
    assert arguments == ["check", "a b"]
    assert {name: env.get(name) for name in EXPECTED} == EXPECTED
    assert env["HOME"] == "/var/lib/imagehub"
    assert not (tmp_path / "made").exists()
