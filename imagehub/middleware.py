from contextvars import ContextVar
request_id: ContextVar[str] = ContextVar("request_id", default="")
def RequestIdMiddleware(get_response):
    return get_response
