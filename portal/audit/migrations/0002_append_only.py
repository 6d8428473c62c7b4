"""Make the database itself refuse to change, delete, skip or fork an event.

SQLite: `REPLACE INTO` overwrites a row in spite of a delete trigger unless the insert trigger is
there (recursive_triggers is off by default). PostgreSQL: ENABLE ALWAYS, so that not even
session_replication_role turns them off.
"""

from django.db import migrations

SQLITE = """
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit_event BEGIN
  SELECT RAISE(ABORT, 'the audit is append-only');
END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit_event BEGIN
  SELECT RAISE(ABORT, 'the audit is append-only');
END;
CREATE TRIGGER audit_link BEFORE INSERT ON audit_event BEGIN
  SELECT RAISE(ABORT, 'an event must follow the head of the audit chain')
  WHERE NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_event)
     OR NEW.prev IS NOT COALESCE(
          (SELECT hash FROM audit_event ORDER BY seq DESC LIMIT 1), printf('%064d', 0));
END;
"""

POSTGRESQL = """
CREATE FUNCTION audit_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE FUNCTION audit_link() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.seq IS DISTINCT FROM (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_event)
     OR NEW.prev IS DISTINCT FROM COALESCE(
          (SELECT hash FROM audit_event ORDER BY seq DESC LIMIT 1), repeat('0', 64)) THEN
    RAISE EXCEPTION 'an event must follow the head of the audit chain';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit_event
  FOR EACH ROW EXECUTE FUNCTION audit_immutable();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_event
  FOR EACH STATEMENT EXECUTE FUNCTION audit_immutable();
CREATE TRIGGER audit_link BEFORE INSERT ON audit_event
  FOR EACH ROW EXECUTE FUNCTION audit_link();
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_no_change;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_no_truncate;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_link;
"""

UNDO = {
    "sqlite": "DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; DROP TRIGGER audit_link;",
    "postgresql": """
DROP TRIGGER audit_no_change ON audit_event;
DROP TRIGGER audit_no_truncate ON audit_event;
DROP TRIGGER audit_link ON audit_event;
DROP FUNCTION audit_immutable();
DROP FUNCTION audit_link();
""",
}


def make(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    statements = {"sqlite": SQLITE, "postgresql": POSTGRESQL}[vendor]
    if vendor == "sqlite":
        # The driver takes one statement at a time; each of ours ends with END;
        for statement in statements.split("END;\n"):
            if statement.strip():
                schema_editor.execute(statement + "END;")
    else:
        schema_editor.execute(statements.replace("%", "%%"), params=None)


def undo(apps, schema_editor):
    for statement in UNDO[schema_editor.connection.vendor].split(";"):
        if statement.strip():
            schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]
    operations = [migrations.RunPython(make, undo)]
