"""The story, step by step. Each step uses what a person would use and says what was seen."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.timezone import now

from portal.overview.demo.browser import Browser, Page, fetch
from portal.overview.demo.portal_process import Portal, password

META, HF = "llama/7b-meta@1", "llama/7b-hf@1"
CHECKED_WITHIN = 120
RANGE = 1 << 19  # bytes asked for at a time
CUT_AFTER = 100


class StoryError(Exception):
    """A step did not hold; the message says what was seen instead."""


def require(held: object, otherwise: str) -> None:
    """Stop the story if ``held`` is not so."""
    if not held:
        raise StoryError(otherwise)


class Story:
    """Publish, apply, approve, download, verify, revoke, and look into the audit."""

    def __init__(self, portal: Portal, folder: Path, say: Callable[[str], None]) -> None:
        self.portal, self.folder, self._say = portal, folder, say
        self._begun = time.monotonic()
        self.cast = {
            "operator and reviewer": ("reviewer@lab.example", password()),
            "applicant": ("applicant@uni.example", password()),
        }
        self.applicant = Browser(portal.url)
        self.reviewer = Browser(portal.url)

    def tell(self) -> None:
        """Tell it all.

        Raises:
            StoryError: a step did not hold.
        """
        self.make_checkpoints()
        self.publish()
        self.start()
        self.sign_up()
        self.apply()
        self.approve()
        urls = self.get_urls()
        copy = self.download(urls)
        self.verify(copy)
        self.find_a_flipped_bit(copy)
        self.check_by_the_worker()
        self.refuse_bad_urls(urls)
        self.look_into_the_audit()
        self.say(f"every step held, in {time.monotonic() - self._begun:.0f} s")

    def say(self, seen: str) -> None:
        """Print one line with what was seen."""
        self._say(f"✓ {seen}")

    # -- the lab ------------------------------------------------------------------------------
    def make_checkpoints(self) -> None:
        """Make one set of weights in both layouts, and a copy with two layers exchanged."""
        for folder, layout, more in (
            ("meta", "meta", ()),
            ("hf", "hf", ()),
            ("swapped", "hf", ("--swap-layers", "1", "2")),
        ):
            made = subprocess.run(
                [
                    *(sys.executable, "-m", "inference_check.synthetic"),
                    *(str(self.folder / folder), "--layout", layout),
                    *("--parts", "2", "--seed", "7", *more),
                ],
                cwd=settings.BASE_DIR,
                capture_output=True,
                text=True,
                check=False,
            )
            require(made.returncode == 0, f"no checkpoint was made: {made.stderr}")
        files = sorted(path.name for path in (self.folder / "meta").iterdir())
        self.say(f"made a LLaMA-architecture checkpoint in Meta's layout ({', '.join(files)})")
        files = sorted(path.name for path in (self.folder / "hf").iterdir())
        self.say(f"made the same weights in Hugging Face layout ({', '.join(files)})")

    def publish(self) -> None:
        """Publish both layouts."""
        for folder, name in (("meta", META), ("hf", HF)):
            done = self.portal.command("publish", str(self.folder / folder), name)
            require(done.returncode == 0, f"publish failed: {done.stderr or done.stdout}")
            self.say(done.stdout.strip())

    def start(self) -> None:
        """Start the site and a worker, and make the first operator."""
        email, word = self.cast["operator and reviewer"]
        made = self.portal.command(
            *("createsuperuser", "--noinput", "--email", email),
            extra={"DJANGO_SUPERUSER_PASSWORD": word},
        )
        require(made.returncode == 0, f"createsuperuser failed: {made.stderr}")
        self.portal.start_site()
        self.portal.start("worker", "worker")
        self.say(f"started the site at {self.portal.url} and a Celery worker")

    # -- the applicant ------------------------------------------------------------------------
    def sign_up(self) -> None:
        """Sign up and confirm the address by the link in the mail."""
        email, word = self.cast["applicant"]
        page = self.applicant.get("/account/signup/")
        self.applicant.send(
            page, page.form_with("password1"), email=email, password1=word, password2=word
        )
        link = re.search(r"http://\S+/account/confirm-email/\S+", self._last_mail(email))
        require(link, "the mail holds no link that confirms the address")
        assert link is not None
        page = self.applicant.get(urllib.parse.urlsplit(link.group()).path)
        # the form carries a key of its own, made anew when the page is shown
        (form,) = (form for form in page.forms if "/confirm-email/" in form.action)
        confirmed = self.applicant.send(page, form)
        require(confirmed.status == 200, f"confirming the address answered {confirmed.status}")
        self.say(f"{email} signed up and confirmed the address by the link in the mail")
        page = self.applicant.get("/account/login/")
        if any("password" in form.names for form in page.forms):
            self.applicant.send(page, page.form_with("password"), login=email, password=word)

    def apply(self) -> None:
        """Fill the form, accept the terms, submit."""
        page = self.applicant.get("/families/llama/")
        page = self.applicant.send(page, page.form_with("/apply/"))
        form = page.form_with("checkpoints")
        steps: list[tuple[str, dict[str, Any]]] = [
            ("checkpoints", {"checkpoints": form.choices["checkpoints"]}),
            (
                "name",
                {
                    "name": "A. Applicant",
                    "affiliation": "University of Example, Computer Science",
                    "role": "academic",
                },
            ),
            ("purpose", {"purpose": "We study how model weights change under quantization."}),
        ]
        for asks, answers in steps:
            page = self.applicant.send(page, page.form_with(asks), **answers, **{"continue": "1"})
        require(page.url.endswith("/check/"), f"the form was not accepted: it shows {page.url}")
        page = self.applicant.send(page, page.form_with("accept"), accept="on")
        require("waiting for a reviewer" in page.text, "the status page does not say that it waits")
        self.request = int(re.findall(r"/requests/(\d+)/", page.url)[0])
        self.say(f"they filled the form, accepted the terms and submitted request {self.request}")

    def approve(self) -> None:
        """Sign in to Django admin and approve there."""
        email, word = self.cast["operator and reviewer"]
        page = self.reviewer.get("/admin/login/?next=/admin/access/accessrequest/")
        page = self.reviewer.send(page, page.form_with("password"), username=email, password=word)
        place = f"/admin/access/accessrequest/{self.request}/"
        require(any(place in link for link in page.links), "the queue does not show the request")
        page = self.reviewer.get(f"{place}change/")
        require("quantization" in page.text, "the reviewer cannot read the application")
        page = self.reviewer.get(f"{place}decide/approve/")
        until = (now() + timedelta(days=30)).date().isoformat()
        page = self.reviewer.send(
            page, page.form_with("until"), reason="A sound purpose. Welcome.", until=until
        )
        status = self.applicant.get(f"/requests/{self.request}/")
        require(
            "A sound purpose" in status.text, "the applicant does not see the reviewer's reason"
        )
        require("approved" in self._last_mail(self.cast["applicant"][0]), "no mail of the approval")
        self.say(
            f"the reviewer approved it in Django admin until {until}; the applicant has a mail"
        )

    # -- downloading --------------------------------------------------------------------------
    def get_urls(self) -> dict[str, dict[str, str]]:
        """Get signed URLs from the page of each grant: checkpoint → path → URL."""
        page = self.applicant.get("/access/")
        forms = [form for form in page.forms if re.search(r"/access/\d+/urls/$", form.action)]
        require(len(forms) == 2, f"the page of one's access shows {len(forms)} grants, not 2")
        urls: dict[str, dict[str, str]] = {}
        for form in forms:
            self._grant_of_last = int(re.findall(r"/access/(\d+)/", form.action)[0])
            issued = self.applicant.send(page, form)
            name = META if META in issued.text else HF
            links = [link for link in issued.links if "/d/" in link and "signature=" in link]
            urls[name] = {self._path_of(link, issued): link for link in links}
            if name == META:
                self.meta_grant = self._grant_of_last
        count = sum(len(each) for each in urls.values())
        self.say(f"the applicant got {count} signed URLs, one for each file")
        return urls

    def _path_of(self, link: str, page: Page) -> str:
        """Return the path in the checkpoint of the file behind a signed URL."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(link).path.rsplit("/", 1)[-1])
        inside = f".weighbridge/{name}"
        return inside if inside in page.text else name

    def download(self, urls: dict[str, dict[str, str]]) -> Path:
        """Download every file with a plain HTTP client, in ranges; one is cut and resumed."""
        ranges, cut = 0, ""
        for name, files in urls.items():
            for path, url in files.items():
                target = self.folder / "copies" / name.replace("/", "-") / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if not cut:
                    cut = f"{path}, cut after {self._cut(url, target):,} bytes"
                ranges += self._download_one(url, target)
        shards = sum(len(files) for files in urls.values())
        self.say(f"downloaded {shards} files over HTTP in {ranges} ranges; resumed {cut}")
        return self.folder / "copies" / META.replace("/", "-")

    def _cut(self, url: str, target: Path) -> int:
        """Begin to download a file, and lose the connection in the middle of it."""
        with urllib.request.urlopen(url, timeout=30) as answer:
            return target.write_bytes(answer.read(CUT_AFTER))

    def _download_one(self, url: str, target: Path) -> int:
        """Download what is missing of a file, range by range; return how many there were."""
        status, headers, _ = fetch(url, method="HEAD")
        require(status == 200, f"HEAD of {target.name} answered {status}")
        size, etag = int(headers["content-length"]), headers["etag"]
        ranges = 0
        with target.open("ab") as file:
            while (start := file.tell()) < size:
                wanted = f"bytes={start}-{min(start + RANGE, size) - 1}"
                status, _, body = fetch(url, headers={"Range": wanted, "If-Range": etag})
                require(status == 206, f"{wanted} of {target.name} answered {status}")
                file.write(body)
                ranges += 1
        require(target.stat().st_size == size, f"{target.name} has the wrong size")
        return ranges

    # -- verifying ----------------------------------------------------------------------------
    def verify(self, copy: Path) -> None:
        """Verify the copies with the manifest that came with them and the release key alone."""
        key = self.folder / "release.pub.pem"
        key.write_text(self.portal.command("keys", "export").stdout)
        for folder in (copy, copy.parent / HF.replace("/", "-")):
            report, status = self._report(folder)
            require(
                (report["verdict"], status) == ("identical", 0),
                f"verify says {report['verdict']} of {folder.name}, exit {status}",
            )
        self.say("verify, with the release key and no database: identical, exit 0, both copies")

    def _report(self, folder: Path, *more: str) -> tuple[dict, int]:
        """Verify on a machine that has neither database nor site: only the key."""
        done = self.portal.command(
            *("verify", str(folder), "--trusted-key", str(self.folder / "release.pub.pem")),
            *("--json", *more),
            data=self.folder / "elsewhere",
        )
        require(done.stdout.startswith("{"), f"verify gave no report: {done.stderr}")
        return json.loads(done.stdout), done.returncode

    def find_a_flipped_bit(self, copy: Path) -> None:
        """Flip one bit; verify names file and range."""
        shard = copy / "consolidated.01.pth"
        at = shard.stat().st_size // 2
        original = shard.read_bytes()
        shard.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        report, status = self._report(copy, "--checks", "files")
        found = [f for f in report["findings"] if f["path"] == shard.name and f["ranges"]]
        inside = any(start <= at < end for f in found for start, end in f["ranges"])
        require(
            status == 1 and report["verdict"] == "damaged" and inside,
            f"verify says {report['verdict']}, exit {status}, of one flipped bit",
        )
        shard.write_bytes(original)
        self.say(f"one bit of {shard.name} flipped: damaged, bytes {found[0]['ranges'][0]}, exit 1")

    def check_by_the_worker(self) -> None:
        """Let the worker run the Hugging Face copy, and one with two layers exchanged."""
        drop = self.portal.data / "drop"
        drop.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.folder / "copies" / HF.replace("/", "-"), drop / "hf-copy")
        shutil.copytree(self.folder / "swapped", drop / "swapped-copy")
        report = self._checked("hf-copy")
        require(
            report["verdict"] == "identical" and report["inference"]["status"] == "agrees",
            f"the worker says {report['verdict']}, {report['inference']}",
        )
        self.say("the worker ran the Hugging Face copy: identical, inference agrees")
        report = self._checked("swapped-copy")
        inference = report["inference"]
        require(
            report["verdict"] != "identical" and inference["status"] == "disagrees",
            f"the worker says {report['verdict']}, {inference} of two layers swapped",
        )
        self.say(f"a copy with two layers swapped: {report['verdict']}, inference disagrees")

    def _checked(self, folder: str) -> dict:
        page = self.reviewer.get("/verify/")
        form = page.form_with("folder")
        page = self.reviewer.send(page, form, folder=folder, checkpoint=HF)
        match = re.search(r"/verifications/([0-9a-f-]{36})/", page.url)
        require(match, f"asking for a check of {folder} answered {page.status} at {page.url}")
        assert match is not None
        until = time.monotonic() + CHECKED_WITHIN
        while time.monotonic() < until:
            answer = self.reviewer.get(f"/verifications/{match.group(1)}/report.json")
            if answer.status == 200:
                report: dict = json.loads(answer.text)
                return report
            if self.portal.revive("worker", "worker"):
                self.say("the worker was killed; a new one takes its check over")
            time.sleep(0.5)
        raise StoryError(f"the worker did not finish the check of {folder} in {CHECKED_WITHIN} s")

    # -- what is refused ----------------------------------------------------------------------
    def refuse_bad_urls(self, urls: dict[str, dict[str, str]]) -> None:
        """Use a URL that expired, one with a character changed, and one of a revoked grant."""
        email = self.cast["applicant"][0]
        token = self.portal.command("token", email, "--scope", "download", "--days", "1")
        require(token.returncode == 0, f"no token was made: {token.stderr}")
        status, _, body = fetch(
            f"{self.portal.url}/api/v1/downloads",
            method="POST",
            headers={
                "Authorization": f"Bearer {token.stdout.strip()}",
                "Content-Type": "application/json",
            },
            data=json.dumps({"checkpoint": META, "expires_in": 1}).encode(),
        )
        require(status == 201, f"POST /api/v1/downloads answered {status}: {body[:200]!r}")
        short = json.loads(body)["files"][0]["url"]
        time.sleep(1.2)
        self._refused("an expired URL", short)
        good = urls[META]["consolidated.00.pth"]
        flipped = good[:-1] + ("0" if good[-1] != "0" else "1")
        self._refused("a URL with one character changed", flipped)
        page = self.reviewer.get(f"/admin/access/grant/{self.meta_grant}/revoke/")
        self.reviewer.send(page, page.form_with("reason"), reason="The project has ended.")
        self._refused("a URL of a revoked grant", good)

    def _refused(self, what: str, url: str) -> None:
        status, _, body = fetch(url, headers={"Accept": "text/plain"})
        reason = body.decode(errors="replace").strip()
        require(status == 403 and reason, f"{what} was answered with {status}")
        self.say(f"{what}: refused, “{reason.splitlines()[0]}”")

    def look_into_the_audit(self) -> None:
        """Verify the chain; then edit a row of a copy behind the application's back."""
        held = self.portal.command("audit", "verify")
        require(held.returncode == 0, f"the audit chain does not hold: {held.stderr}")
        self.say(held.stdout.strip())
        forged = self.folder / "forged"
        forged.mkdir()
        with sqlite3.connect(self.portal.data / "weighbridge.sqlite3") as source:
            target = sqlite3.connect(forged / "weighbridge.sqlite3")
            source.backup(target)
        source.close()
        target.execute("DROP TRIGGER audit_no_update")
        target.execute("UPDATE audit_event SET actor = 'user:1' WHERE action = 'request.submitted'")
        target.commit()
        target.close()
        found = self.portal.command("audit", "verify", data=forged)
        require(found.returncode == 1 and "edited" in found.stderr, "an edited row was not found")
        self.say(f"a row edited with the trigger dropped: found, “{found.stderr.strip()}”")

    def _last_mail(self, to: str) -> str:
        """Return the newest mail to somebody, as the mail folder of the portal holds it."""
        folder = self.portal.data / "mail"
        files = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        mails = [mail for mail in (path.read_text() for path in files) if f"To: {to}" in mail]
        require(mails, f"there is no mail to {to}")
        return mails[-1]
