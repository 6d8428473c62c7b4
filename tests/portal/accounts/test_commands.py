import re

import pytest
from django.core.management import CommandError, call_command

from portal.access import policy
from portal.access.models import Decision
from portal.accounts import tokens
from portal.accounts.models import ApiToken, User
from portal.audit.models import Event


def grant(*arguments, by="reviewer@lab.example"):
    call_command("grant", *arguments, "--by", by)


def test_a_token_stands_alone_on_stdout_and_works(checkpoint, at, capsys):
    call_command("token", "new@uni.example", "--scope", "download", "--days", "3")
    secret = capsys.readouterr().out.strip()
    assert re.fullmatch(r"hf_[A-Za-z0-9]{40}", secret)
    assert tokens.authenticate(secret, scope="download", at=at).user.email == "new@uni.example"
    assert not User.objects.get().has_usable_password()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["not-an-address", "--scope", "download"], "not an e-mail address"),
        (["a@uni.example", "--scope", "everything"], "everything is not a scope"),
        (["a@uni.example", "--scope", "read", "--days", "0"], "--days 0"),
    ],
)
def test_a_wrong_word_is_named(db, arguments, says):
    with pytest.raises(CommandError, match=says):
        call_command("token", *arguments)
    assert not ApiToken.objects.exists()


def test_a_grant_on_paper_opens_the_checkpoint(checkpoint, reviewer, at, capsys):
    arguments = ["new@uni.example", "llama/7b@1", "--until", "2099-01-01", "--reason", "Form 12."]
    grant(*arguments)
    number = int(capsys.readouterr().out)
    person = User.objects.get(email="new@uni.example")
    from django.utils.timezone import now

    assert policy.decide(person, checkpoint, now()).grant.pk == number
    assert Event.objects.filter(action="grant.begun", actor=reviewer.actor).exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--until": "tomorrow"}, "not a date"),
        ({"--until": "2001-01-01"}, "has passed"),
        ({"name": "llama/7b@9"}, "not published here"),
        ({"name": "llama"}, "FAMILY/VARIANT@VERSION"),
        ({"email": "nobody"}, "not an e-mail address"),
        ({"--by": "stranger@other.example"}, "not the address of a reviewer"),
    ],
)
def test_a_grant_that_cannot_be_is_refused_in_a_sentence(
    checkpoint, reviewer, stranger, changes, says
):
    given = {
        "email": "new@uni.example",
        "name": "llama/7b@1",
        "--until": "2099-01-01",
        "--reason": "R",
        "--by": "reviewer@lab.example",
    } | changes
    words = [given.pop("email"), given.pop("name"), *(w for pair in given.items() for w in pair)]
    with pytest.raises(CommandError, match=says):
        call_command("grant", *words)
    assert not Decision.objects.exists()


def test_people_approved_elsewhere_come_in_all_or_none(checkpoint, reviewer, tmp_path, capsys):
    file = tmp_path / "people.csv"
    header = "email,name,until,reason\n"
    good = "{}@uni.example,llama/7b@1,2099-01-01,Approved on paper\n"
    file.write_text(header + good.format("a") + "b@uni.example,llama/7b@1,never,R\n")
    with pytest.raises(CommandError, match=r"line 3: 'never' is not a date"):
        grant("--from", str(file))
    assert not Decision.objects.exists()
    file.write_text(header + good.format("a") + good.format("b"))
    capsys.readouterr()
    grant("--from", str(file))
    assert len(capsys.readouterr().out.split()) == 2
    assert Decision.objects.count() == 2
