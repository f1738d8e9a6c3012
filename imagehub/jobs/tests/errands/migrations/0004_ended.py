from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('errands', '0003_overtaken'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='errand',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['-finished_at'], name='errand_ended'),
        ),
    ]
