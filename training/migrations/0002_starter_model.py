from django.db import migrations


def add_starter_model(apps, schema_editor):
    apps.get_model("training", "BaseModel").objects.using(schema_editor.connection.alias).create(
        name="starter",
        kind="bundled",
        source="starter",
        default_width=64,
        default_height=64,
        default_steps=25,
        default_guidance_scale=3.0,
    )


def remove_starter_model(apps, schema_editor):
    apps.get_model("training", "BaseModel").objects.using(schema_editor.connection.alias).filter(
        name="starter"
    ).delete()


class Migration(migrations.Migration):
    dependencies = [("training", "0001_base_model")]

    operations = [migrations.RunPython(add_starter_model, remove_starter_model)]
