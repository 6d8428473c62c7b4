import sys
from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now

from portal.catalog import keyring, newest, rotation
from portal.catalog.keyring import Change, KeyringError
from portal.catalog.revisions import ResignError
from portal.storage.stores import StoreError
from verifier import roots
from verifier.envelopes import key_id, load_private, load_public
from verifier.errors import VerifierError
from verifier.keys import RELEASE_PUBLIC
from verifier.roots import ROLES

BY = "command:keys"
ERRORS = (KeyringError, ResignError, StoreError, VerifierError)


class Command(BaseCommand):
    help = "The keys by which this portal's manifests are verified, and the root that names them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
        commands.add_parser("list", help="every key: its kind, role, since when, and state")
        export = commands.add_parser("export", help="print the release key as PEM")
        export.add_argument("--root", action="store_true", help="print root.json instead")
        add = commands.add_parser("add", help="list a key whose private half is elsewhere")
        add.add_argument("--role", choices=ROLES, required=True)
        add.add_argument("--public", type=Path, required=True, metavar="FILE", help="as PEM")
        add.add_argument(
            "--threshold", type=int, metavar="N", help="from now on N root keys must sign"
        )
        rotate = commands.add_parser("rotate", help="put a new key in the place of this portal's")
        rotate.add_argument("role", choices=ROLES)
        revoke = commands.add_parser(
            "revoke", help="take every right from a key, and sign anew what it signed"
        )
        revoke.add_argument("key", metavar="KEYID", help="or the beginning of it")
        revoke.add_argument("--reason", required=True, metavar="TEXT")
        root = commands.add_parser("root", help="the version that waits for signatures")
        chosen = root.add_mutually_exclusive_group(required=True)
        chosen.add_argument("--draft", action="store_true", help="print it, to be signed elsewhere")
        chosen.add_argument("--discard", action="store_true", help="drop it")
        sign = commands.add_parser("sign-root", help="sign a draft, or bring its signatures")
        sign.add_argument(
            "file", metavar="FILE", type=Path, help="what `keys root --draft` printed"
        )
        sign.add_argument(
            "--key",
            type=Path,
            metavar="PEM",
            help="add this private key's signature to FILE; without it: bring FILE's signatures",
        )

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        at = now()
        try:
            getattr(self, f"_{what.replace('-', '_')}")(options, at)
        except ERRORS as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}.") from error

    def _list(self, options: dict[str, Any], at: datetime) -> None:
        root, rows = rotation.table(by=BY, at=at)
        self.stdout.write(f"{'key':<16}  {'kind':<7}  {'role':<7}  {'since':<10}  state")
        for row in rows:
            since = f"{row.since:%Y-%m-%d}"
            line = f"{row.keyid[:16]}  {row.kind:<7}  {row.role:<7}  {since}  {row.state}"
            self.stdout.write(line)
        threshold = root.roles["root"].threshold
        self.stdout.write(
            f"Root version {root.version}, {threshold} of {len(root.roles['root'].keyids)} root "
            f"keys must sign the next; it expires on {root.expires_at:%d %B %Y}."
        )
        if keyring.draft() is not None:
            self.stdout.write(f"Version {root.version + 1} waits for signatures.")

    def _export(self, options: dict[str, Any], at: datetime) -> None:
        root = keyring.current(by=BY, at=at)
        if options["root"]:
            data = keyring.envelope_of(root.version) or b""
        else:
            data = (keyring.folder() / RELEASE_PUBLIC).read_bytes()
        self.stdout.write(data.decode(), ending="")

    def _add(self, options: dict[str, Any], at: datetime) -> None:
        public = load_public(options["public"].read_bytes(), str(options["public"]))
        change = rotation.add(options["role"], public, threshold=options["threshold"], by=BY, at=at)
        self._tell(change, f"{key_id(public)[:16]} is a {options['role']} key.", at)

    def _rotate(self, options: dict[str, Any], at: datetime) -> None:
        change = rotation.rotate(options["role"], by=BY, at=at)
        keyid = change.root.roles[options["role"]].keyids[-1]
        self._tell(change, f"{keyid[:16]} is the {options['role']} key in use.", at)

    def _revoke(self, options: dict[str, Any], at: datetime) -> None:
        change = rotation.revoke(options["key"], reason=options["reason"], by=BY, at=at)
        if change is None:
            self.stdout.write("It is revoked already.")
            self._follow_up(at)
        else:
            self._tell(change, "It counts no longer.", at)

    def _root(self, options: dict[str, Any], at: datetime) -> None:
        if options["discard"]:
            keyring.discard(by=BY, at=at)
            self.stdout.write("The version that waited for signatures is dropped.")
            return
        waiting = keyring.draft()
        if waiting is None:
            raise KeyringError("No version of the root waits for signatures.")
        self.stdout.write(waiting.as_bytes().decode(), ending="")

    def _sign_root(self, options: dict[str, Any], at: datetime) -> None:
        file: Path = options["file"]
        data = roots.read_file(file)
        if options["key"] is None:
            change = keyring.bring_signatures(data, str(file), by=BY, at=at)
            self._tell(change, f"The signatures in {file} are taken.", at)
            return
        envelope = roots.open_envelope(data, str(file))
        key = load_private(options["key"].read_bytes(), str(options["key"]))
        self._show(roots.parse(envelope.payload, str(file)))
        file.write_bytes(envelope.signed_by([key]).as_bytes())
        self.stdout.write(f"{file} carries the signature of {key_id(key.public_key())[:16]}.")

    def _show(self, root: roots.Root) -> None:
        """Say what is signed, so that nobody signs what they have not read."""
        self.stdout.write(f"Version {root.version}, expires on {root.expires_at:%d %B %Y}:")
        for role in ROLES:
            keyids = " ".join(keyid[:16] for keyid in root.roles[role].keyids)
            self.stdout.write(f"  {role:<7}  {root.roles[role].threshold} of  {keyids}")
        for keyid, one in root.revoked.items():
            self.stdout.write(f"  revoked  {keyid[:16]}: {one.reason}")

    def _tell(self, change: Change, sentence: str, at: datetime) -> None:
        version = change.root.version
        if change.in_force:
            self.stdout.write(f"{sentence} Root version {version} is in force.")
            self._follow_up(at)
            return
        self.stdout.write(
            f"Nothing changed yet: root version {version} lacks {change.missing}. Print it with "
            "`keys root --draft`, have it signed with `keys sign-root FILE --key PEM`, and bring "
            "the signatures with `keys sign-root FILE`."
        )

    def _follow_up(self, at: datetime) -> None:
        """Sign anew what only revoked keys signed, and say what is newest."""
        for checkpoint in rotation.resign_revoked(by=BY, at=at):
            self.stdout.write(f"Signed {checkpoint} again, as revision {checkpoint.revision}.")
        try:
            newest.current(by=BY, at=at)
        except newest.UnsignedError as error:
            print(error, file=sys.stderr)
