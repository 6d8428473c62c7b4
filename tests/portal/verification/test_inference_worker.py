"""Inference by the worker that ends badly: real limits, real kills; and the next check works."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from django.db import connections
from django.utils.timezone import now

from inference_check.synthetic import Shape, make_checkpoint, make_weights, write_hf
from portal.catalog.models import Checkpoint, Name
from portal.catalog.publishing import publish
from portal.verification import copies, running
from portal.verification.asking import ask_folder
from portal.verification.models import Verification
from portal.verification.tasks import queue
from tests.conftest import make_person

pytestmark = pytest.mark.slow
SHAPE = Shape(layers=2, width=64, heads=4, kv_heads=2, hidden=176, vocab=384)
WITHIN = 90  # seconds


@pytest.fixture
def reviewer(committed_db, settings):
    """A reviewer, with `llama/tiny@1` published and its copy in the drop folder."""
    from django.contrib.auth.models import Group

    settings.DATA = committed_db.parent
    settings.DROP_FOLDER = settings.DATA / "drop"
    settings.STORE_FOLDER = settings.DATA / "store"
    settings.CHECK_DEVICE = "cpu"
    make_checkpoint(settings.DROP_FOLDER / "copy", "hf", shape=SHAPE)
    name = Name.parse("llama/tiny@1")
    publish(settings.DROP_FOLDER / "copy", name, by="command:publish", at=now())
    user = make_person("reviewer@lab.example", is_staff=True)
    user.groups.add(Group.objects.get(name="Reviewers"))
    return user


def check(reviewer, name):
    asked = ask_folder(reviewer, name, Checkpoint.objects.get(), at=now())
    running.run_check(asked.pk)
    done = Verification.objects.get(pk=asked.pk)
    assert done.status == "done", done.sentence
    assert not copies.folder_of(asked.pk).exists()
    return done


def kill_inference(folder, found):
    """Kill the process that runs the model of ``folder`` as soon as there is one."""
    until = time.monotonic() + WITHIN
    while not found and time.monotonic() < until:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[1:4] == [b"-m", b"inference_check", str(folder).encode()]:
                os.kill(int(entry.name), signal.SIGKILL)
                found.append(entry.name)
                break
        time.sleep(0.02)
    connections.close_all()


def test_a_killed_inference_is_not_run_and_the_next_check_agrees(reviewer, settings):
    found = []
    killer = threading.Thread(target=kill_inference, args=(settings.DROP_FOLDER / "copy", found))
    killer.start()
    done = check(reviewer, "copy")
    killer.join()
    assert len(found) == 1
    assert (done.verdict, done.report["inference"]["status"]) == ("identical", "not-run")
    assert "SIGKILL" in done.report["inference"]["reason"]
    assert check(reviewer, "copy").report["inference"]["status"] == "agrees"


def test_weights_that_are_not_numbers_disagree_with_the_layer_named(reviewer, settings):
    weights = make_weights(SHAPE)
    name = "model.layers.1.mlp.up_proj.weight"
    spoiled = weights | {name: torch.full_like(weights[name], torch.nan)}
    (settings.DROP_FOLDER / "nan").mkdir()
    write_hf(settings.DROP_FOLDER / "nan", spoiled, SHAPE, 2)
    done = check(reviewer, "nan")
    assert (done.exit_status, done.report["inference"]["status"]) == (1, "disagrees")
    assert done.report["inference"]["first_layer"] == "layer 1"


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="CUDA: memory is not bounded")
def test_a_check_without_memory_fails_with_the_reason_and_the_next_agrees(reviewer, settings):
    settings.CHECK_MEMORY = 140 << 20  # the verifier fits; what compares weights does not
    asked = ask_folder(reviewer, "copy", Checkpoint.objects.get(), at=now())
    running.run_check(asked.pk)
    done = Verification.objects.get(pk=asked.pk)
    assert done.status == "failed" and "memory" in done.sentence
    assert not copies.folder_of(asked.pk).exists()
    settings.CHECK_MEMORY = 16 << 30
    done = check(reviewer, "copy")
    assert done.report["inference"]["status"] == "agrees"
    assert done.report["isolation"]["memory"].startswith("17,179,869,184 bytes")
    assert done.report["isolation"]["network"]


@pytest.mark.parametrize(("has_gpu", "name"), [(False, "default"), (True, "gpu")])
def test_checks_wait_where_a_gpu_is_if_a_worker_has_one(settings, has_gpu, name):
    settings.GPU_WORKER = has_gpu
    assert queue() == name
