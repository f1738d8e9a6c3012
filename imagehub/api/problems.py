from rest_framework.views import exception_handler as drf_exception_handler
from django.http import JsonResponse
def exception_handler(error, context):
    return drf_exception_handler(error, context)
def bad_request(request, exception=None):
    return JsonResponse({}, status=400)
def permission_denied(request, exception=None):
    return JsonResponse({}, status=403)
def not_found(request, exception=None):
    return JsonResponse({}, status=404)
def server_error(request):
    return JsonResponse({}, status=500)
def csrf_failure(request, reason=""):
    return JsonResponse({}, status=403)
