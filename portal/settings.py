"""Settings, all chosen by environment variables; a wrong one stops with its name.

The embedded default needs none of them: SQLite, local files and a broker without a server live
in the folder `WEIGHBRIDGE_DATA` (default `var/` beside `manage.py`). docs/settings.md lists all.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import SimpleLazyObject

from portal.storage.keyfiles import read_or_make_secret

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
Value = TypeVar("Value")


def setting(name: str, default: Value, read: Callable[[str], Value]) -> Value:
    """Return ``WEIGHBRIDGE_<name>`` as read by ``read``, or ``default`` where it is not set.

    Raises:
        ImproperlyConfigured: the value cannot be read; the message names the variable.
    """
    variable = f"WEIGHBRIDGE_{name}"
    text = env.str(variable, "")
    if not text:
        return default
    try:
        return read(text)
    except (ValueError, ImproperlyConfigured) as error:
        raise ImproperlyConfigured(
            f"{variable} is {text!r}, which cannot be used: {error}."
        ) from error


def yes_or_no(text: str) -> bool:
    """Read a switch."""
    answers = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
    if text.lower() not in answers:
        raise ValueError("say 1 or 0")
    return answers[text.lower()]


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a reader that accepts ``choices`` only."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"say one of {', '.join(choices)}")
        return text

    return read


def positive(text: str) -> int:
    """Read a whole number above zero."""
    number = int(text)
    if number < 1:
        raise ValueError("say a whole number above 0")
    return number


def names(text: str) -> list[str]:
    """Read a list separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def http_address(text: str) -> str:
    """Read the address of a server: scheme and host, no path."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("say http:// or https:// and a host")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("leave out what follows the host")
    return text.rstrip("/")


def folder(text: str) -> Path:
    """Read a path, made absolute."""
    return Path(text).expanduser().resolve()


def web_address(text: str) -> str:
    """Read an address of http or https, without a slash at its end."""
    place = urlsplit(text)
    if place.scheme not in ("http", "https") or not place.netloc:
        raise ValueError("say an address such as https://orcid.org")
    return text.rstrip("/")


def openid_providers(text: str) -> list[dict[str, Any]]:
    """Read a JSON list of OpenID Connect providers into what django-allauth wants of each."""
    wanted = ("id", "name", "url", "client_id", "secret")
    try:
        given = json.loads(text)
        return [
            {
                "provider_id": one["id"],
                "name": one["name"],
                "client_id": one["client_id"],
                "secret": one["secret"],
                "settings": {
                    "server_url": web_address(one["url"]),
                    "trust_email": one.get("trust_email") is True,
                    "oauth_pkce_enabled": True,
                },
            }
            for one in given
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"say a JSON list of objects with {', '.join(wanted)} ({error})"
        ) from error


def _places_of(providers: list[dict[str, Any]]) -> list[SplitResult]:
    return [urlsplit(one["settings"]["server_url"]) for one in providers]


# Where this portal keeps its things. Two folders are two portals.
DATA = setting("DATA", BASE_DIR / "var", folder)
DEBUG = setting("DEBUG", False, yes_or_no)
SECRET_KEY: Any = SimpleLazyObject(partial(read_or_make_secret, DATA / "keys" / "secret.key"))

# The address people see, used in mails, manifests of URLs and for the origin checks.
PUBLIC_URL = setting("URL", "http://127.0.0.1:8000", str).rstrip("/")
_SECURE = PUBLIC_URL.startswith("https://")
ALLOWED_HOSTS = setting("HOSTS", ["127.0.0.1", "localhost", "[::1]"], names)
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
BEHIND_PROXY = setting("BEHIND_PROXY", False, yes_or_no)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# the last hop of X-Forwarded-For is the one that the proxy in front has seen
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if BEHIND_PROXY else 0
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _SECURE
SECURE_HSTS_SECONDS = 31_536_000 if _SECURE else 0
SESSION_COOKIE_AGE = 14 * 24 * 3600
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],  # the admin's style sheets carry their icons as data
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

INSTALLED_APPS = [
    "portal.overview",
    "portal.verification",
    "portal.hub",
    "portal.delivery",
    "portal.access",
    "portal.catalog",
    "portal.outbox",
    "portal.accounts",
    "portal.audit",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.forms",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "csp",
    "django_guid",
    "django_htmx",
    "django_countries",
]
MIDDLEWARE = [
    "django_guid.middleware.guid_middleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.accounts.sessions.SessionRules",
]
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "portal" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
# The admin's forms are plain Django; ours are drawn by one partial, templates/components/field.html.
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"

# -- database -------------------------------------------------------------------------------
EMBEDDED_DATABASE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": DATA / "weighbridge.sqlite3",
    "CONN_MAX_AGE": None,
    # IMMEDIATE: a transaction takes the write lock when it begins, so none fails half-way.
    # FULL: in WAL mode NORMAL may lose the last commits on power loss, and with them the audit
    # row of a URL that was already handed out.
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    },
}
DATABASES: dict[str, Any] = {
    "default": setting("DATABASE_URL", EMBEDDED_DATABASE, env.db_url_config)
}
if "postgresql" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 2, "max_size": 12, "timeout": 10}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUDIT_HEADS = DATA / "audit" / "heads.jsonl"

# -- people ---------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
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
ACCOUNT_ADAPTER = "portal.accounts.adapter.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_CONFIRM_EMAIL_ON_GET = False
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_REAUTHENTICATION_REQUIRED = True
MFA_ADAPTER = "portal.accounts.second_factors.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_RECOVERY_CODES_SHOW_ONCE = True
# Staff pages ask for a second factor, except where a portal is only tried out on one machine.
_ON_THIS_MACHINE = urlsplit(PUBLIC_URL).hostname in ("127.0.0.1", "localhost", "::1")
_EMBEDDED = DATABASES["default"] is EMBEDDED_DATABASE
STAFF_MFA = setting("STAFF_MFA", not (_EMBEDDED and _ON_THIS_MACHINE), yes_or_no)
# Accounts elsewhere, each registered there with the return address
# WEIGHBRIDGE_URL/account/elsewhere/orcid/login/callback/ or …/elsewhere/oidc/ID/login/callback/.
ORCID_URL = setting("ORCID_URL", "https://orcid.org", web_address)
ORCID_API_URL = setting("ORCID_API_URL", "https://pub.orcid.org", web_address)
_ORCID_CLIENT = setting("ORCID_CLIENT_ID", "", str)
_NONE: list[dict[str, Any]] = []
OPENID = setting("OPENID", _NONE, openid_providers)
SOCIALACCOUNT_ADAPTER = "portal.accounts.elsewhere.SocialAccountAdapter"
SOCIALACCOUNT_QUERY_EMAIL = True
SOCIALACCOUNT_PROVIDERS: dict[str, Any] = {"openid_connect": {"APPS": OPENID}}
if _ORCID_CLIENT:
    SOCIALACCOUNT_PROVIDERS["orcid"] = {
        "APP": {"client_id": _ORCID_CLIENT, "secret": setting("ORCID_SECRET", "", str)}
    }
# A browser lets a form end only where this says, redirects included.
CONTENT_SECURITY_POLICY["DIRECTIVES"]["form-action"] += [
    *([ORCID_URL] if _ORCID_CLIENT else []),
    *(f"{place.scheme}://{place.netloc}" for place in _places_of(OPENID)),
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/access/"

# -- mail -----------------------------------------------------------------------------------
# `file` writes each mail into DATA/mail, `console` prints it, smtp://… sends it.
EMAIL_BACKENDS = {
    "file": "django.core.mail.backends.filebased.EmailBackend",
    "console": "django.core.mail.backends.console.EmailBackend",
}
_MAIL = setting("EMAIL", "file", str)
if _MAIL in EMAIL_BACKENDS:
    EMAIL_BACKEND = EMAIL_BACKENDS[_MAIL]
else:
    vars().update(setting("EMAIL", {}, env.email_url_config))
EMAIL_FILE_PATH = DATA / "mail"
EMAIL_TIMEOUT = 10
MAIL_IS_LOCAL = _MAIL in EMAIL_BACKENDS
DEFAULT_FROM_EMAIL = SERVER_EMAIL = setting("FROM", "Weighbridge <portal@localhost>", str)

# -- stores and URLs ------------------------------------------------------------------------
STORE = setting("STORE", "folder", one_of("folder", "s3"))
STORE_FOLDER = setting("STORE_FOLDER", DATA / "store", folder)
# Who sends what lies in the folder: the application, or nginx in front of it.
SENDFILE = setting("SENDFILE", "", one_of("nginx"))
S3_BUCKET = setting("S3_BUCKET", "", str)
S3_ENDPOINT = setting("S3_ENDPOINT", "", http_address)
S3_PUBLIC_ENDPOINT = setting("S3_PUBLIC_ENDPOINT", "", http_address)
S3_REGION = setting("S3_REGION", "us-east-1", str)
S3_ADDRESSING = setting("S3_ADDRESSING", "path", one_of("path", "virtual"))
S3_KMS_KEY = setting("S3_KMS_KEY", "", str)
if STORE == "s3" and not S3_BUCKET:
    raise ImproperlyConfigured("WEIGHBRIDGE_S3_BUCKET is not set, and WEIGHBRIDGE_STORE is s3.")
CLOUDFRONT_URL = setting("CLOUDFRONT_URL", "", http_address)
CLOUDFRONT_KEY_ID = setting("CLOUDFRONT_KEY_ID", "", str)
CLOUDFRONT_KEY_FILE = setting("CLOUDFRONT_KEY_FILE", None, folder)
CLOUDFRONT_UNVERIFIED_ECDSA = setting("CLOUDFRONT_UNVERIFIED_ECDSA", False, yes_or_no)
if CLOUDFRONT_URL:
    if STORE != "s3":
        raise ImproperlyConfigured("WEIGHBRIDGE_CLOUDFRONT_URL needs WEIGHBRIDGE_STORE=s3.")
    for _name in ("CLOUDFRONT_KEY_ID", "CLOUDFRONT_KEY_FILE"):
        if not vars()[_name]:
            raise ImproperlyConfigured(
                f"WEIGHBRIDGE_{_name} is not set, and WEIGHBRIDGE_CLOUDFRONT_URL is."
            )
URL_SECONDS = setting("URL_SECONDS", 3600, positive)
URL_SECONDS_AT_MOST = 12 * 3600
STORE_URL_SECONDS = 60

# -- checks of copies -----------------------------------------------------------------------
DROP_FOLDER = setting("DROP_FOLDER", DATA / "drop", folder)
CHECKS_PER_DAY = setting("CHECKS_PER_DAY", 20, positive)
CHECK_BYTES_PER_DAY = setting("CHECK_BYTES_PER_DAY", 500 * 10**9, positive)
FETCH_PRIVATE_ADDRESSES = setting("FETCH_PRIVATE_ADDRESSES", False, yes_or_no)
CHECK_DEVICE = setting("CHECK_DEVICE", "auto", str)
GPU_WORKER = setting("GPU_WORKER", False, yes_or_no)
# Bytes of data that each process of a check may have; mapped files are not counted.
CHECK_MEMORY = setting("CHECK_MEMORY", 16 << 30, positive)
CHECK_LEASE_SECONDS = setting("CHECK_LEASE_SECONDS", 45, positive)
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
FILE_UPLOAD_TEMP_DIR = None
SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"

# -- rates are counted here; several processes that should count together need one that they share -
CACHES = {
    "default": setting(
        "CACHE_URL",
        {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        env.cache_url_config,
    )
}

# -- queue ----------------------------------------------------------------------------------
BROKER_URL = setting("BROKER_URL", "filesystem://", str)

# -- language, time, static files -----------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]
LOCALE_PATHS = [BASE_DIR / "portal" / "locale"]
USE_I18N = USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "portal" / "static"]
WHITENOISE_USE_FINDERS = True

# -- logging: to stderr; no request line of ours carries a query string, where signatures are -
# One id per request, in the log and on error pages; a proxy may bring its own.
DJANGO_GUID = {"GUID_HEADER_NAME": "X-Request-ID", "EXPOSE_HEADER": False}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request": {"()": "django_guid.log_filters.CorrelationId"}},
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s"}
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request"]}
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"portal": {"level": "INFO"}},
}
