"""A challenge from the draw to the verdict, by real processes on real weights."""

import json
import secrets
import subprocess
import sys

import pytest
from django.utils.timezone import now

from inference_check.synthetic import Shape, make_checkpoint
from portal.catalog.models import Checkpoint, Name
from portal.catalog.publishing import publish
from portal.verification import challenges, copies, running
from portal.verification.models import Challenge, Verification
from tests.conftest import make_person

pytestmark = pytest.mark.slow
SHAPE = Shape(layers=2, width=64, heads=4, kv_heads=2, hidden=176, vocab=384)


@pytest.fixture
def holder(committed_db, settings):
    """A person with the copies `hf` and `meta` of a published checkpoint, in the drop folder."""
    settings.DATA = committed_db.parent
    settings.DROP_FOLDER = settings.DATA / "drop"
    settings.STORE_FOLDER = settings.DATA / "store"
    for layout in ("hf", "meta"):
        make_checkpoint(settings.DROP_FOLDER / layout, layout, shape=SHAPE)
    name = Name.parse("llama/tiny@1")
    publish(settings.DROP_FOLDER / "hf", name, by="command:publish", at=now())
    return make_person("holder@uni.example")


def draw(holder):
    return challenges.draw(holder, Checkpoint.objects.get(), at=now())


def answer(folder, challenge, tmp_path):
    """Run the command that the page tells, on a machine without the portal."""
    file = tmp_path / f"{secrets.token_hex(4)}.json"
    file.write_text(json.dumps(challenges.content(challenge).content()))
    command = [sys.executable, "-m", "inference_check", str(folder), "--challenge", str(file)]
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def judged(challenge, data, holder):
    check = challenges.answer(challenge, data, by=holder, at=now())
    running.run_check(check.pk)
    assert not copies.folder_of(check.pk).exists()
    return Verification.objects.get(pk=check.pk)


@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_a_true_copy_answers_right(holder, settings, tmp_path, client, layout):
    challenge = draw(holder)
    data = answer(settings.DROP_FOLDER / layout, challenge, tmp_path)
    done = judged(challenge, data, holder)
    assert (done.status, done.verdict, done.exit_status) == ("done", "agrees", 0), done.sentence
    assert str(settings.DATA) not in str(done.report)
    assert Challenge.objects.get(pk=challenge.pk).official
    client.force_login(holder)
    page = client.get(done.get_absolute_url()).content.decode()
    assert "can run these weights" in page and "no file was sent" in page
    assert client.get(f"{done.get_absolute_url()}report.html").status_code == 200


def test_the_official_files_are_only_linked_and_stay(holder, settings, tmp_path):
    shards = list(Checkpoint.objects.get().shards.weights())
    kept = [settings.STORE_FOLDER / shard.store_key for shard in shards]
    before = [path.read_bytes() for path in kept]
    challenge = draw(holder)
    judged(challenge, answer(settings.DROP_FOLDER / "hf", challenge, tmp_path), holder)
    assert [path.read_bytes() for path in kept] == before


def test_a_changed_copy_disagrees_and_its_tensor_is_named(holder, settings, tmp_path):
    changed = tmp_path / "changed"
    make_checkpoint(changed, "hf", shape=SHAPE, swap_layers=(0, 1))
    challenge = draw(holder)
    done = judged(challenge, answer(changed, challenge, tmp_path), holder)
    assert (done.verdict, done.exit_status) == ("disagrees", 1)
    assert "layer 0's input_layernorm" in done.sentence


def test_an_answer_to_other_questions_disagrees(holder, settings, tmp_path):
    """The holder's forger answers a challenge of yesterday and writes the new id on it."""
    yesterday, challenge = draw(holder), draw(holder)
    data = answer(settings.DROP_FOLDER / "hf", yesterday, tmp_path)
    forged = data.replace(str(yesterday.pk).encode(), str(challenge.pk).encode())
    assert judged(challenge, forged, holder).verdict == "disagrees"


def test_a_damaged_store_fails_the_check_and_blames_nobody(holder, settings, tmp_path):
    challenge = draw(holder)
    data = answer(settings.DROP_FOLDER / "hf", challenge, tmp_path)
    shard = Checkpoint.objects.get().shards.filter(path__endswith=".safetensors").first()
    file = settings.STORE_FOLDER / shard.store_key
    with file.open("r+b") as stream:
        stream.seek(shard.size - 40_000)
        stream.write(bytes(20_000))
    done = judged(challenge, data, holder)
    assert (done.status, done.verdict) == ("failed", "")
    assert "is not as it was published" in done.sentence
