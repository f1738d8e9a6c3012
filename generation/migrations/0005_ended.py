from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('generation', '0004_set_run_outcomes'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='generationjob',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['-finished_at'], name='generationjob_ended'),
        ),
    ]
