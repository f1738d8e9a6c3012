import allauth.account.admin
import allauth.socialaccount.admin  # noqa: F401 - registers what is unregistered below
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialApp, SocialToken
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from imagehub.accounts import services
from imagehub.accounts.models import ApiToken, AuditEntry
from imagehub.admin_lists import ReadOnlyAdmin

# Clients of Google come from the settings alone, and nothing is stored in the other two.
admin.site.unregister([EmailAddress, SocialApp, SocialToken])


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):
    """Look through tokens, and revoke them. They are created where their secret can be shown once."""

    list_display = [
        "name",
        "user",
        "prefix",
        "scopes",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    ]
    list_filter = ["revoked_at"]
    list_select_related = ["user"]
    search_fields = ["name", "prefix", "user__username", "user__email"]
    date_hierarchy = "created_at"
    ordering = ["-created_at", "-id"]
    exclude = ["digest"]
    actions = ["revoke"]

    @admin.action(description="Revoke selected API tokens", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        revoked = sum(services.revoke_token(token) for token in queryset)
        self.message_user(request, f"Revoked {revoked} of {len(queryset)}.", messages.SUCCESS)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> list[str]:
        return [field.name for field in self.opts.concrete_fields if field.name != "digest"]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Read who did what."""

    list_display = ["at", "actor_name", "via", "action", "target_type", "target_label", "address"]
    list_filter = ["via", "action", "target_type"]
    search_fields = ["actor_name", "target_id", "target_label", "request_id"]
    date_hierarchy = "at"
    ordering = ["-at", "-id"]
