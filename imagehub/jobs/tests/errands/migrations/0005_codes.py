from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('errands', '0004_ended'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='errand',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['status', '-finished_at', 'error_code'], name='errand_codes'),
        ),
    ]
