"""Ceph's S3 gateway with a cluster of one monitor and one disk in memory."""

import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.servers import end, free_port, listens, wait_for

PROGRAMS = (
    "ceph",
    "ceph-mon",
    "ceph-osd",
    "radosgw",
    "radosgw-admin",
    "monmaptool",
    "ceph-authtool",
)
ACCESS_KEY, SECRET_KEY = "WEIGHBRIDGETESTS", "made-up-secret-for-tests"
KMS_KEY = "weights"
ATTEMPTS, TRIES = 5, 20
# A program that first asks the monitor for its configuration knows afterwards the monitor's address,
# but no longer the cluster's id until it is told, and a command sent before that is refused ("wrong
# fsid"). Daemons read all from the file; the command line cannot be told so and is run again.
NO_MON_CONFIG = "--no-mon-config"

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon_port}
ms bind msgr2 = false
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
osd pool default pg autoscale mode = off
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
[osd]
osd objectstore = memstore
memstore device bytes = 4294967296
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = {kms_key}=YmluCmJvb3N0CmJvb3N0LWJ1aWxkCmNlcGguY29uZgo=
rgw dns name = localhost
rgw gc obj min wait = 1
rgw gc processor period = 5
rgw gc processor max time = 5
"""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway: its port, and the credentials of its only user."""

    port: int
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def why_not() -> str:
    """Say why no gateway can be started here; nothing where it can."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    return (
        f"{missing[0]} is not installed (apt install radosgw ceph-mon ceph-osd)" if missing else ""
    )


class Cluster:
    """The processes of one gateway and the folder they live in."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="weighbridge-rgw-"))
        self.port = free_port()
        self.processes: list[subprocess.Popen] = []
        self._environment = os.environ | {"CEPH_CONF": str(self.folder / "ceph.conf")}

    def start(self) -> Gateway:
        """Start it and wait until a user can be served (about 15 s)."""
        fsid, mon_port, folder = str(uuid.uuid4()), free_port(), self.folder
        (folder / "ceph.conf").write_text(
            CONFIGURATION.format(
                fsid=fsid, mon_port=mon_port, folder=folder, port=self.port, kms_key=KMS_KEY
            )
        )
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        keyring, monmap = f"{folder}/keyring", f"{folder}/monmap"
        for who in ("mon.", "client.admin"):
            create = [] if Path(keyring).exists() else ["--create-keyring"]
            caps = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]
            self._run("ceph-authtool", keyring, *create, "--gen-key", "-n", who, *caps)
        address = f"[v1:127.0.0.1:{mon_port}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._spawn("ceph-mon", "-i", "a", "-f")
        wait_for("the monitor", lambda: listens(mon_port), seconds=20)
        disk = str(uuid.uuid4())
        self._run("ceph", "osd", "new", disk, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._spawn("ceph-osd", "-i", "0", "-f", NO_MON_CONFIG)
        wait_for("the disk", lambda: "1 up" in self._run("ceph", "osd", "stat"), seconds=40)
        self._spawn("radosgw", "-n", "client.rgw", "-f", NO_MON_CONFIG)
        wait_for("the gateway", lambda: listens(self.port), seconds=60)
        user = ["user", "create", "--uid=tests", "--display-name=tests"]
        keys = [f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        self._run("radosgw-admin", "-n", "client.rgw", "--admin-socket", "", *user, *keys)
        return Gateway(self.port)

    def stop(self) -> None:
        """Kill the processes and remove the folder."""
        end(*reversed(self.processes))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str) -> str:
        """Run a command, again where it was too early (see `NO_MON_CONFIG`)."""
        for _ in range(TRIES):
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=self.folder,
                env=self._environment,
            )
            if done.returncode == 0:
                return done.stdout
            if "EPERM" not in done.stderr and "not permitted" not in done.stderr:
                break
        raise subprocess.SubprocessError(f"{command[:3]}: {done.stderr[-500:]}")

    def _spawn(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("w") as out:
            self.processes.append(
                subprocess.Popen(
                    command,
                    stdout=out,
                    stderr=out,
                    cwd=self.folder,
                    env=self._environment,
                    start_new_session=True,
                )
            )


def start() -> tuple[Cluster, Gateway]:
    """Start a gateway; its disk sometimes does not come up, so up to five fresh folders are tried."""
    for attempt in range(1, ATTEMPTS + 1):
        cluster = Cluster()
        try:
            return cluster, cluster.start()
        except (TimeoutError, subprocess.SubprocessError):
            cluster.stop()
            if attempt == ATTEMPTS:
                raise
        except BaseException:
            cluster.stop()
            raise
    raise AssertionError("unreachable")
