"""Settings, read from the environment and from ``.env``. Every name read here stands in ``.env.example``."""

import os
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from imagehub import security_headers
from imagehub.jobs.clusters import django_q_settings
from imagehub.logs import format_of, logging_settings
from imagehub.production import refuse_unfit_environment
from imagehub.secret_key import development_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
env.read_env(BASE_DIR / ".env", overwrite=False)

ENVIRONMENT = env.str("IMAGEHUB_ENV", default="development")
if ENVIRONMENT not in {"development", "production"}:
    raise ImproperlyConfigured("IMAGEHUB_ENV is 'development' or 'production'.")
IS_PRODUCTION = ENVIRONMENT == "production"

# Where everything the system writes goes, unless a root of its own is named below.
VAR_DIR = Path(env.str("IMAGEHUB_VAR", default=str(BASE_DIR / "var"))).resolve()
CONFIG_FILE_IS_NAMED = bool(env.str("IMAGEHUB_CONFIG", default=""))
CONFIG_FILE = Path(env.str("IMAGEHUB_CONFIG", default="") or BASE_DIR / "config.yaml")
refuse_unfit_environment(os.environ, var_dir=VAR_DIR, config_file=CONFIG_FILE, is_production=IS_PRODUCTION)
# Roots that the environment names; imagehub/roots.py knows where the others are.
NAMED_ROOTS = {
    "media": env.str("IMAGEHUB_MEDIA_ROOT", default=""),
    "models": env.str("IMAGEHUB_MODELS_ROOT", default=""),
    "training": env.str("IMAGEHUB_TRAINING_ROOT", default=""),
    "scraping": env.str("IMAGEHUB_SCRAPING_ROOT", default=""),
}

DEBUG = env.bool("IMAGEHUB_DEBUG", default=False)
SECRET_KEY = (
    env.str("IMAGEHUB_SECRET_KEY")
    if IS_PRODUCTION
    else env.str("IMAGEHUB_SECRET_KEY", default="") or development_secret_key(VAR_DIR)
)
ALLOWED_HOSTS = [
    item.strip() for item in env.list("IMAGEHUB_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
]
# Frontends on other origins: they may call the API with the visitor's session, and sign-in tells them when it is done.
FRONTEND_ORIGINS = [item.strip() for item in env.list("IMAGEHUB_FRONTEND_ORIGINS", default=[])]
CSRF_TRUSTED_ORIGINS = [
    *FRONTEND_ORIGINS,
    *[item.strip() for item in env.list("IMAGEHUB_CSRF_TRUSTED_ORIGINS", default=[])],
]
# How many proxies of ours stand in front: only what these wrote into `X-Forwarded-For` is believed.
TRUSTED_PROXIES = int(env.str("IMAGEHUB_TRUSTED_PROXIES", default="") or 0)

# Hosts, host:port and networks that scraping, imports and webhooks may reach although they are not public.
SCRAPING_ALLOW_PRIVATE = [
    item.strip() for item in env.list("IMAGEHUB_SCRAPING_ALLOW_PRIVATE", default=[]) if item.strip()
]

# Where operators are told of alerts (imagehub/operations/notify.py). The address of a webhook is a secret.
ALERT_WEBHOOK = env.str("IMAGEHUB_ALERT_WEBHOOK", default="")
ALERT_WEBHOOK_IS_PRIVATE = env.bool("IMAGEHUB_ALERT_WEBHOOK_PRIVATE", default=False)
ALERT_EMAILS = [item.strip() for item in env.list("IMAGEHUB_ALERT_EMAILS", default=[]) if item.strip()]
vars().update(env.email_url_config(env.str("EMAIL_URL", default="") or "dummymail://"))
DEFAULT_FROM_EMAIL = env.str("IMAGEHUB_EMAIL_FROM", default="") or "imagehub@localhost"
EMAIL_TIMEOUT = 10  # nobody waits for a mail server

# What is ours: staff work with the rows of these packages, and the audit trail records their changes.
OWN_PACKAGES = ("imagehub", "albums", "training", "scraping", "generation")

# Signing in with Google is off, and nowhere to be seen, unless both of these are set.
GOOGLE_CLIENT_ID = env.str("GOOGLE_CLIENT_ID", default="")
GOOGLE_CLIENT_SECRET = env.str("GOOGLE_CLIENT_SECRET", default="")
# Whoever signs in with one of these addresses is staff for as long as it stands here.
STAFF_EMAILS = frozenset(email.strip().lower() for email in env.list("IMAGEHUB_STAFF_EMAILS", default=[]))
# Another OpenID provider in Google's place, with its paths /authorize, /token, /certs and /userinfo.
GOOGLE_URL = env.str("IMAGEHUB_GOOGLE_URL", default="").rstrip("/")

INSTALLED_APPS = [
    # Ours first: imagehub.jobs replaces Django-Q's `qcluster` command with one that can be supervised.
    "imagehub",
    "imagehub.jobs",
    "imagehub.accounts",
    "imagehub.operations",
    "albums",
    "training",
    "scraping",
    "generation",
    "imagehub.accounts.admin_config.AdminConfig",  # django.contrib.admin with a lock on its door
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "corsheaders",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.google",
    "django_ratelimit",
    *env.list("IMAGEHUB_EXTRA_APPS", default=[]),
]

MIDDLEWARE = [
    "imagehub.middleware.RequestIdMiddleware",
    # Outside of all that can refuse a request: a frontend has to be able to read why.
    "corsheaders.middleware.CorsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_permissions_policy.PermissionsPolicyMiddleware",
    "imagehub.security_headers.ResponseHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "imagehub.accounts.callback_rescue.CallbackRescueMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "imagehub.accounts.middleware.AuditMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "imagehub.urls"
WSGI_APPLICATION = "imagehub.wsgi.application"
APPEND_SLASH = False  # the paths of the API end without one

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "imagehub.accounts.context_processors.google_sign_in",
            ]
        },
    }
]

# Where files are stored (imagehub/storage): on the disk, or in a bucket of an S3-compatible service.
MEDIA_BUCKET = {
    "bucket_name": env.str("IMAGEHUB_S3_BUCKET", default=""),
    "location": env.str("IMAGEHUB_S3_PREFIX", default="").strip("/"),
    "endpoint_url": env.str("IMAGEHUB_S3_ENDPOINT", default="") or None,
    "public_endpoint": env.str("IMAGEHUB_S3_PUBLIC_ENDPOINT", default=""),
    "region_name": env.str("IMAGEHUB_S3_REGION", default="") or "us-east-1",
    # Without keys boto3 looks where Amazon's own tools do: its variables, its files, the role of the machine.
    "access_key": env.str("IMAGEHUB_S3_ACCESS_KEY", default="") or None,
    "secret_key": env.str("IMAGEHUB_S3_SECRET_KEY", default="") or None,
    "querystring_expire": int(env.str("IMAGEHUB_S3_URL_SECONDS", default="") or 60),
    # A service of one's own answers to its one name; Amazon gives each bucket a host.
    "addressing_style": "path" if env.str("IMAGEHUB_S3_ENDPOINT", default="") else "virtual",
}
USES_BUCKET = env.str("IMAGEHUB_STORAGE", default="") == "s3"
# Fetch files from the bucket and pass them on, instead of sending browsers there.
S3_PROXY = env.bool("IMAGEHUB_S3_PROXY", default=False)
# Where nginx has the media root for itself (`internal`): it sends the files, and we only say which.
ACCEL_PREFIX = env.str("IMAGEHUB_ACCEL_PREFIX", default="")

# What browsers are told; imagehub/security_headers.py has the reasons.
CONTENT_SECURITY_POLICY = security_headers.content_security_policy(
    image_origins=security_headers.bucket_origins(MEDIA_BUCKET) if USES_BUCKET and not S3_PROXY else ()
)
PERMISSIONS_POLICY = security_headers.PERMISSIONS_POLICY
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
CORS_URLS_REGEX = r"^/api/"
CORS_ALLOWED_ORIGINS = FRONTEND_ORIGINS
CORS_ALLOW_CREDENTIALS = True
CORS_ALLOW_METHODS = security_headers.CORS_METHODS
CORS_ALLOW_HEADERS = security_headers.CORS_REQUEST_HEADERS
CORS_EXPOSE_HEADERS = security_headers.CORS_RESPONSE_HEADERS
if TRUSTED_PROXIES:
    # The nearest proxy ends TLS, and says so; it overwrites what the client may have written there.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

SILENCED_SYSTEM_CHECKS = [
    # A cache in the process counts well as long as there is one web process: imagehub.E001 sees to that.
    "django_ratelimit.E003",
    # It knows neither Django's own Redis cache nor ours around it. Both count atomically, and tests prove it.
    "django_ratelimit.W001",
]

if IS_PRODUCTION:
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = security_headers.PLAIN_HTTP_PATHS
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = env.bool("IMAGEHUB_HSTS_PRELOAD", default=False)
    if not SECURE_HSTS_PRELOAD:  # it cannot be taken back for months, so it is the operator's decision
        SILENCED_SYSTEM_CHECKS.append("security.W021")
    # Browsers refuse cookies of this prefix from any other host, without TLS, and for a part of the paths.
    SESSION_COOKIE_NAME = "__Host-sessionid"
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_NAME = "__Host-csrftoken"
    CSRF_COOKIE_SECURE = True

DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'imagehub.sqlite3'}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Web and workers write at once: wait for the lock, and take it up front.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # A file, because tests start clusters and commands that must see the same database.
    DATABASES["default"]["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    # A database that has vanished from the network must not hold a worker's heartbeat for minutes.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        # Who hangs in the middle of a transaction holds locks, and with them everybody else: he loses them after a minute.
        "options": "-c idle_in_transaction_session_timeout=60s",
    } | DATABASES["default"].get("OPTIONS", {})
# Without lasting connections a cluster on PostgreSQL is six times slower, and a request on SQLite pays 3 ms.
DATABASES["default"]["CONN_MAX_AGE"] = int(env.str("IMAGEHUB_CONN_MAX_AGE", default="") or 60)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")
CACHES = {
    alias: {"BACKEND": "imagehub.failover_cache.FailoverCache", "LOCATION": REDIS_URL, "KEY_PREFIX": alias}
    if REDIS_URL
    else {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": alias,
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
    for alias in ("default", "rate_limits")
}
RATELIMIT_USE_CACHE = "rate_limits"
RATELIMIT_CACHE_PREFIX = "rl:"
# How many processes answer requests; uvicorn and gunicorn read this name themselves.
WEB_PROCESSES = int(env.str("WEB_CONCURRENCY", default="") or 1)

Q_CLUSTER = django_q_settings()

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "imagehub.accounts.backends.StaffPermissions",  # what staff may do in the admin; nobody signs in by it
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = (
    "Lax"  # Google leads back by a link, so the session comes along
)

ACCOUNT_ADAPTER = "imagehub.accounts.google.AccountAdapter"
ACCOUNT_EMAIL_VERIFICATION = "none"  # Google has verified the address, or nobody is signed in
SOCIALACCOUNT_ADAPTER = "imagehub.accounts.google.GoogleAdapter"
SOCIALACCOUNT_PROVIDERS = {
    "google": {
        "APPS": [{"client_id": GOOGLE_CLIENT_ID, "secret": GOOGLE_CLIENT_SECRET}]
        if GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET
        else [],
        "SCOPE": ["openid", "email", "profile"],
        "AUTH_PARAMS": {"prompt": "select_account"},
        "OAUTH_PKCE_ENABLED": True,
    }
    | (
        {
            "AUTHORIZE_URL": f"{GOOGLE_URL}/authorize",
            "ACCESS_TOKEN_URL": f"{GOOGLE_URL}/token",
            "CERTS_URL": f"{GOOGLE_URL}/certs",
            "IDENTITY_URL": f"{GOOGLE_URL}/userinfo",
            "ID_TOKEN_ISSUER": GOOGLE_URL,
        }
        if GOOGLE_URL
        else {}
    )
}
CSRF_FAILURE_VIEW = "imagehub.api.problems.csrf_failure"

# Forms of uploads have a limit of their own, which is configured and at most one below: it can say what is wrong.
DATA_UPLOAD_MAX_NUMBER_FILES = 1001

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
if not IS_PRODUCTION:
    STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # WhiteNoise warns about a missing one
# Development serves static files from where they lie; production collects them first.
WHITENOISE_USE_FINDERS = not IS_PRODUCTION
STORAGES = {
    # Files go through imagehub/storage: what bypasses it lands nowhere.
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {
        "BACKEND": "imagehub.static_files.StaticFiles"
        if IS_PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
if USES_BUCKET:
    STORAGES["media"] = {"BACKEND": "imagehub.storage.bucket.MediaBucket", "OPTIONS": MEDIA_BUCKET}

REST_FRAMEWORK = {
    # The first one names the scheme of `WWW-Authenticate`, which makes "not signed in" a 401.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "imagehub.api.authentication.TokenAuthentication",
        "imagehub.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["imagehub.api.permissions.StaffOnly"],  # deny when in doubt
    "DEFAULT_RENDERER_CLASSES": ["imagehub.api.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["imagehub.api.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "imagehub.api.pagination.KeysetPagination",
    "DEFAULT_FILTER_BACKENDS": ["imagehub.api.filters.StrictFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "imagehub.api.schema.AutoSchema",
    "EXCEPTION_HANDLER": "imagehub.api.problems.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "ImageHub",
    "DESCRIPTION": "Keep, collect, train on and generate pictures.",
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "AlbumKind": "albums.api.album_serializers.KINDS",
        "BaseModelKind": "generation.api.model_serializers.KINDS",
        "NewBaseModelKind": "generation.api.model_serializers.NEW_KINDS",
        "JobStatus": "imagehub.jobs.models.JobStatus.choices",
        "Visibility": "albums.models.Visibility.choices",
        "LabelKind": "albums.models.LabelKind.choices",
        "LabelOrigin": "albums.models.LabelOrigin.choices",
        "StopMode": "training.api.run_serializers.STOP_MODES",
        "EstimateBasis": "training.api.dataset_serializers.BASES",
        "HealthStatus": "imagehub.operations.health.STATUSES",
        "PurgeState": "imagehub.operations.api.purge_views.STATES",
        "PurgeOrigin": "imagehub.operations.api.purge_views.ORIGINS",
    },
}

# Errors go to this Sentry server as well; empty: nowhere.
SENTRY_DSN = env.str("SENTRY_DSN", default="")

LOGGING = logging_settings(
    level=env.str("IMAGEHUB_LOG_LEVEL", default="INFO"), log_format=format_of(os.environ)
)
