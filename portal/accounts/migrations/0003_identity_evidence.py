"""Say of each row of evidence who asserts it, beside who brought it here."""

from django.db import migrations, models


def say_who_asserts(apps, schema_editor):
    rows = apps.get_model("accounts", "IdentityEvidence").objects
    rows.filter(source="attested by an operator").update(by="dac")
    rows.filter(kind="operator").update(by="dac")


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_tokens_for_one_checkpoint_and_place")]
    operations = [
        migrations.RenameField("identityevidence", "by", "brought_by"),
        migrations.AddField(
            "identityevidence",
            "by",
            models.CharField(
                choices=[
                    ("self", "the person"),
                    ("peer", "a colleague or supervisor"),
                    ("system", "a system"),
                    ("so", "who signs for the institution"),
                    ("dac", "the portal's operators"),
                ],
                default="system",
                help_text="who asserts it",
                max_length=10,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "identityevidence", "note", models.CharField(blank=True, max_length=300)
        ),
        migrations.RunPython(say_who_asserts, migrations.RunPython.noop),
    ]
