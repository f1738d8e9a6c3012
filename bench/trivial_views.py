"""One view that does nothing, behind ever more of what stands before real ones."""

from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from imagehub.api.throttling import RateLimitedMixin


class OpenView(APIView):
    authentication_classes = []
    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class SignedInView(APIView):
    """For staff, as everything is that does not say otherwise."""

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class LimitedView(RateLimitedMixin, SignedInView):
    rate_limit = "labeling"

    def get(self, request: Request) -> Response:
        self.charge()
        return super().get(request)
