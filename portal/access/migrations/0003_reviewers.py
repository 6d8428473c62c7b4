"""Make the group of reviewers: people who read requests, decide on them and revoke grants."""

from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

READS = {
    "access": ["accessrequest", "decision", "grant", "acceptance", "formversion"],
    "catalog": ["family", "checkpoint", "shard", "terms"],
    "accounts": ["user", "identityevidence"],
    "delivery": ["download"],
    "verification": ["verification"],
    "audit": ["event"],
}
MAY = {"access": ["decide_request"], "verification": ["check_drop_folder"]}


def make(apps, schema_editor):
    Permission = apps.get_model("auth", "Permission")
    group, _ = apps.get_model("auth", "Group").objects.get_or_create(name="Reviewers")
    for label in READS.keys() | MAY.keys():
        # Django makes permissions after the last migration, which is too late for this one.
        create_permissions(installed.get_app_config(label), apps=apps, verbosity=0)
    for label, models in READS.items():
        for model in models:
            group.permissions.add(
                Permission.objects.get(content_type__app_label=label, codename=f"view_{model}")
            )
    for label, codenames in MAY.items():
        for codename in codenames:
            group.permissions.add(
                Permission.objects.get(content_type__app_label=label, codename=codename)
            )


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0002_initial"),
        ("audit", "0001_initial"),
        ("delivery", "0001_initial"),
        ("verification", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    operations = [migrations.RunPython(make, migrations.RunPython.noop)]
