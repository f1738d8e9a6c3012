"""Every failure under ``/api/`` as ``application/problem+json`` (RFC 9457)."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import Error as DatabaseError
from django.db import IntegrityError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.template.loader import render_to_string
from django.views import csrf, defaults
from rest_framework import exceptions
from rest_framework.fields import get_error_detail
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler as drf_exception_handler

from imagehub.context import request_id
from imagehub.database import is_unavailable
from imagehub.errors import Conflict, ImageHubError, Invalid, NotReady, TooMany
from imagehub.rate_limits import RateLimited

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
MAX_ERRORS = 100
"""More would help nobody, and a body of a million unknown fields would be answered with as many sentences."""

INVALID = "Some fields are not valid."
NOT_FOUND = "There is nothing here, or nothing that you may see."
"""One sentence for all, so that hidden and unknown cannot be told apart."""

DATABASE_RETRY_SECONDS = 5
"""What callers are told to wait while the database does not answer: a server that was restarted is back by then."""

TRACE_SECONDS = 60.0
_traced_at: float | None = None

HTTP_STATUS = {Conflict: 409, NotReady: 422, TooMany: 429, ImageHubError: 400}


class ContentTooLarge(exceptions.APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_code = "content_too_large"
    default_detail = "The body of the request is too large."


class RequestRefused(exceptions.APIException):
    status_code = HTTPStatus.BAD_REQUEST
    default_code = "bad_request"
    default_detail = "The request cannot be read."


class DatabaseUnavailable(exceptions.APIException):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "database_unavailable"
    default_detail = "The database does not answer at this moment. Try again in a few seconds."
    wait = DATABASE_RETRY_SECONDS


class ProblemResponse(JsonResponse):
    """A problem document, whatever else the view may render.

    Escapes what is not ASCII: the caller's own words are quoted in it, and half a surrogate pair
    among them cannot be encoded.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data, status=data["status"], content_type=CONTENT_TYPE)
        self.data = data


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """Turn an exception raised in a view into a problem document.

    Returns None for an exception nobody expected: Django logs it, and :func:`server_error` answers.
    """
    request = context["request"]
    if isinstance(error, ImageHubError):
        return of_ours(error, request)
    error = _as_api_exception(error, request)
    response = drf_exception_handler(error, context)
    if response is None or not isinstance(error, exceptions.APIException):
        return None
    problem = ProblemResponse(_of_api_exception(error, request))
    for header in ("WWW-Authenticate", "Retry-After"):
        if header in response.headers:
            problem.headers[header] = response.headers[header]
    return problem


def of_ours(error: ImageHubError, request: HttpRequest | Request) -> HttpResponse:
    """Return the problem document of an anticipated failure, for views that are not DRF's as well."""
    response = ProblemResponse(problem_of(error, request))
    if isinstance(error, TooMany):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, RateLimited):
        for name, value in error.usage.headers.items():
            response.headers[name] = value
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django itself found suspicious."""
    if not _is_api(request):
        return defaults.bad_request(request, exception)
    is_too_large = isinstance(exception, RequestDataTooBig)
    return ProblemResponse(
        _of_api_exception(ContentTooLarge() if is_too_large else RequestRefused(), request)
    )


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that is not allowed."""
    if not _is_api(request):
        return defaults.permission_denied(request, exception)
    return ProblemResponse(_of_api_exception(exceptions.PermissionDenied(), request))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request for something that does not exist."""
    if not _is_api(request):
        return defaults.page_not_found(request, exception)
    return ProblemResponse(_of_api_exception(exceptions.NotFound(), request))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a request that met a bug, or no database. The id of the request leads to the log, and nothing else is told.

    Django calls it while it handles what was raised, in views as in middleware.
    """
    error = sys.exception()
    if isinstance(error, DatabaseError) and is_unavailable(error):
        return _database_unavailable(request)
    if not _is_api(request):
        return defaults.server_error(request)
    return ProblemResponse(
        _problem(
            request,
            status=500,
            code="server_error",
            detail="Something went wrong here. The log has it under the id of this request.",
        )
    )


def _database_unavailable(request: HttpRequest) -> HttpResponse:
    """Say on a page, or in a problem document, that it is worth while to come again."""
    error = DatabaseUnavailable()
    response: HttpResponse = (
        ProblemResponse(_of_api_exception(error, request))
        if _is_api(request)
        else HttpResponse(render_to_string("503.html"), status=error.status_code)
    )
    response.headers["Retry-After"] = str(error.wait)
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a request whose origin could not be verified."""
    if not _is_api(request):
        return csrf.csrf_failure(request, reason=reason)
    return ProblemResponse(
        _problem(request, status=403, code="csrf_failed", detail="The CSRF token is missing or wrong.")
    )


def _is_api(request: HttpRequest) -> bool:
    return f"{request.path_info}/".startswith("/api/")


def _as_api_exception(error: Exception, request: Request) -> Exception:
    """Return the API exception that an exception stands for; what is unexpected stays as it is."""
    if isinstance(error, IntegrityError):  # a lost race, or a row something still needs
        logger.warning("Reported a conflict at %s: %s", request.path, _broken_rule(error))
        conflict = exceptions.APIException("Something else needs this, or changed it first.", Conflict.code)
        conflict.status_code = HTTP_STATUS[Conflict]
        return conflict
    if isinstance(error, DatabaseError) and is_unavailable(error):
        _log_unavailable(error, request.path)
        return DatabaseUnavailable()
    if isinstance(error, ModelValidationError):
        return exceptions.ValidationError(get_error_detail(error))
    if isinstance(error, Http404):  # its text names the model
        return exceptions.NotFound()
    if isinstance(error, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(error, RequestDataTooBig):
        return ContentTooLarge()
    if isinstance(error, UnreadablePostError):
        return RequestRefused("The request ended before its body did.")
    if isinstance(error, SuspiciousOperation):
        return RequestRefused()
    return error


def _log_unavailable(error: DatabaseError, path: str) -> None:
    """Log that the database did not answer: where it happened only once a minute, for all requests that come meanwhile."""
    global _traced_at
    now = time.monotonic()
    is_due = _traced_at is None or now - _traced_at >= TRACE_SECONDS
    if is_due:
        _traced_at = now
    logger.error(
        "The database did not answer at %s: %s",
        path,
        type(error).__name__,
        exc_info=error if is_due else None,
    )


def _broken_rule(error: IntegrityError) -> str:
    """Name what was broken. The full text of PostgreSQL quotes the row, prompts and all."""
    diagnosis = getattr(error.__cause__, "diag", None)
    return str(diagnosis.constraint_name if diagnosis else next(iter(error.args), ""))


def problem_of(
    error: ImageHubError, request: HttpRequest | Request, *, status: int | None = None
) -> dict[str, Any]:
    """Return what is said of an anticipated failure. ``status`` stands for that of its kind."""
    status = status or next(status for kind, status in HTTP_STATUS.items() if isinstance(error, kind))
    problem = _problem(request, status=status, code=error.code, detail=str(error))
    problem |= {"type": f"/problems/{error.code}", "title": error.title}
    if isinstance(error, Invalid):
        problem["errors"] = [
            {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail}
            for fault in error.faults[:MAX_ERRORS]
        ]
    if isinstance(error, TooMany):
        problem |= {"limit": error.limit, "retry_after": error.retry_after}
    if isinstance(error, RateLimited):
        problem["window_seconds"] = error.usage.window_seconds
    return problem


def _of_api_exception(error: exceptions.APIException, request: HttpRequest | Request) -> dict[str, Any]:
    status = int(error.status_code)
    if isinstance(error, exceptions.ValidationError):
        errors = list(_flatten(error.detail))
        is_about_fields = any(item["pointer"] for item in errors) or len(errors) != 1
        detail = INVALID if is_about_fields else errors[0]["detail"]
        return _problem(request, status=status, code=error.default_code, detail=detail) | {
            "errors": errors[:MAX_ERRORS]
        }
    code = error.get_codes()
    code, detail = (code, str(error.detail)) if isinstance(code, str) else (error.default_code, INVALID)
    problem = _problem(request, status=status, code=code, detail=detail)
    if isinstance(error, exceptions.NotFound):
        problem |= {"code": error.default_code, "detail": NOT_FOUND}
    if isinstance(error, exceptions.ParseError):
        problem["errors"] = [{"pointer": "", "code": code, "detail": detail}]
    if (wait := getattr(error, "wait", None)) is not None:
        problem["retry_after"] = int(wait)
    return problem


def _problem(request: HttpRequest | Request, *, status: int, code: str, detail: str) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.path,
        "code": code,
        "request_id": request_id.get(),
    }


def _flatten(detail: Any, pointer: str = "") -> Iterator[dict[str, str]]:
    """Yield one entry for each message in the nested errors of a serializer."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            is_whole = name == api_settings.NON_FIELD_ERRORS_KEY
            yield from _flatten(inner, pointer if is_whole else f"{pointer}/{_escaped(name)}")
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            is_message = isinstance(inner, str)
            yield from _flatten(inner, pointer if is_message else f"{pointer}/{index}")
    else:
        yield {
            "pointer": pointer,
            "code": getattr(detail, "code", None) or "invalid",
            "detail": str(detail),
        }


def _escaped(name: Any) -> str:
    """Write a name as a part of a JSON pointer (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")
