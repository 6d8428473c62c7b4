"""The cast of every test: an applicant, a reviewer, a stranger; and databases that really commit."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils.timezone import now

DAY = timedelta(days=1)
# What an applicant answers to the form that a family has by default.
ANSWERS = {
    "name": "A. Applicant",
    "affiliation": "University of Example",
    "role": "academic",
    "purpose": "We study quantization.",
    "publications": "",
}
# Processes that tests start are portals like any other: the tests' settings are for this one only.
os.environ.pop("DJANGO_SETTINGS_MODULE", None)


@pytest.fixture(scope="session", autouse=True)
def data_folder():
    """Remove the tests' data folder when all is done."""
    yield Path(os.environ["WEIGHBRIDGE_DATA"])
    shutil.rmtree(os.environ["WEIGHBRIDGE_DATA"], ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(data_folder):
    """Keep the tests' database in a file: one in memory is never closed, so none could follow it."""
    from django.db import connections

    for place in (connections["default"].settings_dict, connections.settings["default"]):
        place["TEST"]["NAME"] = str(data_folder / "tests.sqlite3")


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    """Argon2 takes a tenth of a second on purpose; a test need not."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def at():
    return now()


def make_person(email: str, **fields):
    """Make somebody with a confirmed address and the password `weighbridge-test`."""
    from allauth.account.models import EmailAddress

    from portal.accounts.models import User

    user = User.objects.create_user(email, "weighbridge-test", **fields)
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user


def sign_in(client, user, password="weighbridge-test"):
    """Sign in as people do; what is sensitive asks for that, and `force_login` proves nothing."""
    return client.post("/account/login/", {"login": user.email, "password": password})


@pytest.fixture
def applicant(db):
    return make_person("applicant@uni.example")


@pytest.fixture
def stranger(db):
    return make_person("stranger@other.example")


@pytest.fixture
def reviewer(db):
    from django.contrib.auth.models import Group

    user = make_person("reviewer@lab.example", is_staff=True)
    user.groups.add(Group.objects.get(name="Reviewers"))
    return user


@pytest.fixture
def operator(db):
    return make_person("operator@lab.example", is_staff=True, is_superuser=True)


@pytest.fixture
def family(db, at):
    from portal.catalog.publishing import make_family

    return make_family("llama", at=at)


@pytest.fixture
def checkpoint(family, at):
    """A checkpoint whose two shards lie in the store: `a.bin`, 100,000 bytes, and `config.json`."""
    from portal.catalog.models import Checkpoint, Shard
    from portal.storage.stores import store

    made = Checkpoint.objects.create(
        family=family,
        variant="7b",
        version="1",
        statement_sha256="0" * 64,
        signed_by="0" * 64,
        published_at=at,
        published_by="command:publish",
    )
    import hashlib

    for path, content in (("a.bin", bytes(range(250)) * 400), ("config.json", b"{}\n")):
        key = f"checkpoints/{made.name}/{path}"
        store().put_bytes(key, content)
        Shard.objects.create(
            checkpoint=made,
            path=path,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            store_key=key,
        )
    yield made
    for shard in made.shards.all():
        store().delete(shard.store_key)


@pytest.fixture
def application(applicant, checkpoint, at):
    """A submitted request of the applicant's for the checkpoint."""
    from portal.access import applications

    request = applications.begin(applicant, checkpoint.family, at=at)
    applications.save(request, answers=ANSWERS, checkpoints=[checkpoint], at=at)
    applications.submit(
        request, terms=checkpoint.family.terms, at=at, address="192.0.2.7", agent="tests"
    )
    return request


@pytest.fixture
def grant(application, reviewer, at):
    """The applicant's grant, for thirty days."""
    from portal.access import decisions

    (made,) = decisions.approve(
        application, by=reviewer, reason="Sound.", at=at, until=at + 30 * DAY
    )
    return made


@pytest.fixture(scope="session")
def database_template(tmp_path_factory, django_db_blocker):
    """A migrated, empty SQLite file, to be copied."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("template")
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"],
        check=True,
        env=os.environ | {"WEIGHBRIDGE_DATA": str(folder)},
        cwd=Path(__file__).parent.parent,
    )
    return folder / "weighbridge.sqlite3"


@pytest.fixture
def committed_db(database_template, tmp_path, django_db_blocker, settings):
    """A database of this test's own, in a file, where commits are real.

    The audit's triggers forbid to empty its table, so nothing is truncated between tests: each
    gets a fresh copy. Returns the path of the file.
    """
    from django.db import connections

    file = tmp_path / "weighbridge.sqlite3"
    shutil.copy(database_template, file)
    # the connection of this thread and those that other threads will make
    places = [connections["default"].settings_dict, connections.settings["default"]]
    kept = [place["NAME"] for place in places]
    with django_db_blocker.unblock():
        connections.close_all()
        for place in places:
            place["NAME"] = str(file)
        try:
            yield file
        finally:
            connections.close_all()
            for place, name in zip(places, kept, strict=True):
                place["NAME"] = name


def pytest_sessionfinish(session, exitstatus):
    """In CI everything is installed, so a test that was skipped is a failure; GPU tests may skip."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not (os.environ.get("WEIGHBRIDGE_CI") and reporter):
        return
    skipped = [
        str(r.longrepr) for r in reporter.stats.get("skipped", []) if "CUDA" not in str(r.longrepr)
    ]
    if skipped and not exitstatus:
        reporter.write_line(f"skipped in CI: {skipped[0]}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
