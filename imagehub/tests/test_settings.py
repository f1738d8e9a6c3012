"""The settings, and the page that explains them."""

import hashlib
import re
import subprocess
import sys

import pytest
from django.conf import settings

READ = re.compile(r"""(?:env\.\w+\(|environ\.get\()\s*"([A-Z][A-Z0-9_]+)\"""")


def test_the_example_lists_every_name_that_is_read():
    sources = [
        path
        for folder in ("imagehub", "albums", "training", "scraping", "generation")
        for path in (settings.BASE_DIR / folder).rglob("*.py")
        if "tests" not in path.parts
    ]
    of_others = {
        "Q_CLUSTER_NAME",
        "RANK",
        "WORLD_SIZE",
        "NOTIFY_SOCKET",
    }  # of Django-Q, torch's launcher, systemd
    read = {name for path in sources for name in READ.findall(path.read_text())} - of_others
    listed = set(
        re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (settings.BASE_DIR / ".env.example").read_text(), re.MULTILINE)
    )

    assert "IMAGEHUB_VAR" in read
    assert read == listed


def test_the_schema_has_the_version_of_the_code():
    import imagehub

    assert settings.SPECTACULAR_SETTINGS["VERSION"] == imagehub.__version__


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"IMAGEHUB_ENV": "production"}, "IMAGEHUB_SECRET_KEY"),
        ({"IMAGEHUB_ENV": "staging"}, "'development' or 'production'"),
        (
            {
                "IMAGEHUB_ENV": "production",
                "IMAGEHUB_SECRET_KEY": "k" * 60,
                "IMAGEHUB_GOOGLE_URL": "http://id.test",
            },
            "IMAGEHUB_GOOGLE_URL does not begin with https://",
        ),
    ],
)
def test_a_wrong_environment_does_not_start(process_env, env, sentence):
    del process_env["IMAGEHUB_SECRET_KEY"]
    result = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env=process_env | env,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode != 0
    assert sentence in result.stderr


def test_each_installation_draws_its_own_key_once(process_env, tmp_path):
    del process_env["IMAGEHUB_SECRET_KEY"]
    command = [
        sys.executable,
        "manage.py",
        "shell",
        "-v0",
        "-c",
        "from django.conf import settings; print(settings.SECRET_KEY)",
    ]

    starts = [
        subprocess.Popen(command, env=process_env, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    keys = {start.communicate()[0].strip() for start in starts}

    assert len(keys) == 1
    assert len(keys.pop()) >= 50
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0


WITHOUT_EXTRAS = """
import sys
sys.modules.update({"storages": None, "boto3": None, "botocore": None, "sentry_sdk": None})  # as if they were not installed
import imagehub.wsgi
from django.conf import settings
from imagehub import storage
print(storage.store_bytes(b"data", suffix="png").name, settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]["img-src"])
"""


def test_nobody_needs_the_libraries_of_what_is_not_used(process_env):
    output = started(process_env, WITHOUT_EXTRAS)

    assert (
        output == "images/3a/" + hashlib.sha256(b"data").hexdigest() + ".png [\"'self'\", 'data:', 'blob:']"
    )


def test_a_bucket_is_named_by_the_environment(process_env):
    values = {
        "IMAGEHUB_STORAGE": "s3",
        "IMAGEHUB_S3_BUCKET": "pictures",
        "IMAGEHUB_S3_PREFIX": "/hub/",
        "IMAGEHUB_S3_ENDPOINT": "http://minio:9000",
        "IMAGEHUB_S3_PUBLIC_ENDPOINT": "https://files.example.net",
        "IMAGEHUB_S3_ACCESS_KEY": "imagehub",
        "IMAGEHUB_S3_SECRET_KEY": "a secret",
    }
    program = """
import django
django.setup()
from django.conf import settings
from imagehub import storage
url = storage.signed_url("images/ab/a.png", content_type="image/png", disposition="inline", cache_control="private")
print(storage.location_of("images/ab/a.png"), url.split("?")[0], settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]["img-src"][-1])
"""

    assert started(process_env | values, program).split() == [
        "s3://pictures/hub/images/ab/a.png",
        "https://files.example.net/pictures/hub/images/ab/a.png",
        "https://files.example.net",
    ]


def started(env, program):
    """Run a program in this environment, and return what it says."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_space_after_a_comma_is_no_part_of_a_name(process_env):
    values = {
        "IMAGEHUB_ALLOWED_HOSTS": "a.test, b.test",
        "IMAGEHUB_FRONTEND_ORIGINS": "https://a.test, https://b.test",
    }
    program = "from django.conf import settings; print(settings.ALLOWED_HOSTS, settings.CSRF_TRUSTED_ORIGINS)"
    output = subprocess.run(
        [sys.executable, "-c", program],
        env=process_env
        | values
        | {"DJANGO_SETTINGS_MODULE": "imagehub.settings", "IMAGEHUB_CSRF_TRUSTED_ORIGINS": ""},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )

    assert output.stdout.strip() == "['a.test', 'b.test'] ['https://a.test', 'https://b.test']"
