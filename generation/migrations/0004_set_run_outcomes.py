from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('generation', '0003_sets_and_parameters'),
    ]

    operations = [
        migrations.AddField(
            model_name='setrun',
            name='outcome',
            field=models.JSONField(editable=False, help_text='How its pictures ended, once somebody has looked after the last one; a retry takes it away.', null=True),
        ),
        migrations.AddField(
            model_name='setrun',
            name='retries',
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False, help_text='How often it got new jobs.'),
        ),
    ]
