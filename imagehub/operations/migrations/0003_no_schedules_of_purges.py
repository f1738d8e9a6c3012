from django.db import migrations


def delete_schedules(apps, schema_editor):
    """Purges by the clock are planned from the configuration: what had a schedule of its own would be done twice."""
    names = ["Purge trainings", "Purge scrapes"]
    apps.get_model("django_q", "Schedule").objects.filter(name__in=names).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("operations", "0002_disks_and_the_clock"),
        ("django_q", "0018_task_success_index"),
    ]

    operations = [
        # The release before makes them again by itself, after each migration.
        migrations.RunPython(delete_schedules, migrations.RunPython.noop),
    ]
