"""The LLaMA release as it was goes in and comes out: 1, 2, 4 and 8 zip64 parts over 4 GiB each."""

import hashlib
import json
import shutil
import zipfile

import pytest

from portal.overview.demo.portal_process import Portal
from tests.verifier.test_readers_pth import state

OVER_4_GIB = (4 << 30) // 2 + 8  # half-precision numbers
PARAMS = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06}


def sparse_part(path):
    """Write a part as `torch.save` would, with one storage of zeros that takes no room on the disk."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        tensor = ("HalfStorage", "0", OVER_4_GIB, (OVER_4_GIB,), (1,))
        archive.writestr(f"{path.stem}/data.pkl", state({"tok_embeddings.weight": tensor}))
        info = zipfile.ZipInfo(f"{path.stem}/data/0")
        info.file_size = info.compress_size = 2 * OVER_4_GIB
        info.CRC, info.header_offset = 0, archive.fp.tell()
        archive.fp.write(info.FileHeader(zip64=True))
        archive.fp.seek(2 * OVER_4_GIB, 1)
        archive.start_dir = archive.fp.tell()
        archive.filelist.append(info)
        archive.NameToInfo[info.filename] = info


def md5_line(path):
    return f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n"


@pytest.mark.nightly
@pytest.mark.parametrize(("size", "parts"), [("7B", 1), ("13B", 2), ("30B", 4), ("65B", 8)])
def test_a_size_of_the_release_is_published_and_verified(tmp_path, size, parts):
    release = tmp_path / "LLaMA"
    folder = release / size
    folder.mkdir(parents=True)
    (release / "tokenizer.model").write_bytes(b"sentencepiece")
    (release / "tokenizer_checklist.chk").write_text(md5_line(release / "tokenizer.model"))
    for number in range(parts):
        sparse_part(folder / f"consolidated.{number:02}.pth")
    (folder / "params.json").write_text(json.dumps(PARAMS | {"vocab_size": -1}))
    (folder / "checklist.chk").write_text(md5_line(folder / "params.json"))
    portal = Portal(tmp_path / "portal")
    name = f"llama/{size.lower()}@1"
    shared = [release / "tokenizer.model", release / "tokenizer_checklist.chk"]
    done = portal.command(
        *("publish", str(folder), name),
        *(word for file in shared for word in ("--with", str(file))),
    )
    assert done.returncode == 0, done.stderr
    assert f"Published {name}: {parts + 4} files" in done.stdout
    copy = tmp_path / "portal" / "store" / "checkpoints" / name
    assert sum(path.stat().st_blocks * 512 for path in copy.rglob("*")) < 1 << 26
    verified = portal.command("verify", str(copy), "--checks", "files", "--json")
    report = json.loads(verified.stdout)
    assert (report["verdict"], verified.returncode) == ("identical", 0), verified.stderr
    assert all(file["status"] == "good" for file in report["files"])
    shutil.rmtree(tmp_path)
