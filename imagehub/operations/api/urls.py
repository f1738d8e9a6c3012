from django.urls import path

from imagehub.operations.api import config_views, disk_views, queue_views, views

urlpatterns = [
    path("health", views.HealthView.as_view(), name="health"),
    path("health/live", views.LiveView.as_view(), name="health-live"),
    path("health/ready", views.ReadyView.as_view(), name="health-ready"),
    path("queue", queue_views.QueueView.as_view(), name="queue"),
    path("queue/pause", queue_views.QueuePauseView.as_view(), name="queue-pause"),
    path("queue/resume", queue_views.QueueResumeView.as_view(), name="queue-resume"),
    path("config", config_views.ConfigView.as_view(), name="config"),
    path("admin/disk-stats", disk_views.DiskStatsView.as_view(), name="disk-stats"),
    path("admin/config/cache", config_views.ConfigCacheView.as_view(), name="config-cache"),
    path("admin/config/reload", config_views.ConfigReloadView.as_view(), name="config-reload"),
]
