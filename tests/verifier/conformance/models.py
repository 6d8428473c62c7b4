"""The models that the OMS conformance suite signs, made anew: names, contents, what is ignored.

github.com/ossf/model-signing-spec, folder `conformance`: the cases are theirs, the code is ours.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """Files by name; ``ignored`` are left out by --ignore-paths; ``signed`` is what must be listed.

    ``single``: the model is this one file, not the folder.
    """

    files: dict[str, bytes]
    ignored: tuple[str, ...] = ()
    signed: tuple[str, ...] | None = None
    single: str | None = None
    links: dict[str, str] = field(default_factory=dict)

    def make(self, folder: Path) -> Path:
        """Write it below ``folder`` and return where the model is."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        for name, target in self.links.items():
            (folder / name).symlink_to(target)
        return folder / self.single if self.single else folder

    @property
    def listed(self) -> list[str]:
        """The names that its bundle must list, in their order."""
        if self.signed is not None:
            return sorted(self.signed)
        return sorted(set(self.files) - set(self.ignored))


def named(*names: str, ignored: tuple[str, ...] = (), signed: tuple[str, ...] | None = None):
    """Return a model whose files hold their own names."""
    return Model({name: name.encode() for name in (*names, *ignored)}, ignored, signed)


SIMPLE = {"signme-1": b"signme-1\n", "signme-2": b"signme-2", "ignore-me": b""}
DEEP = "a/very/deep/directory/tree/weights.bin"

MODELS = {
    "simple": Model(SIMPLE, ("ignore-me",)),
    "single-file": Model({"model.bin": b"\xef" * 256}, single="model.bin"),
    "multi-file": Model(
        {"config.json": b"{}", "weights.bin": b"\xab" * 1024, "subdir/adapter.bin": b"\xcd" * 512}
    ),
    "binary-content": Model(
        {"header.bin": b"\0\1\xff\xfe\0\0\x89PNG", "weights.bin": bytes(range(256)) * 4}
    ),
    "empty": named(".gitignore", signed=()),
    "with-dotfiles": named(".config", ".env.example", "model.bin"),
    "with-empty-file": Model({"empty.bin": b"", "signme-1": b"signme-1"}),
    "with-git-dir": named(
        ".gitattributes",
        ".gitignore",
        ".git/HEAD",
        ".github/ci.yml",
        "model.bin",
        signed=("model.bin",),
    ),
    "hidden-subdir": named("model.bin", ".cache/weights.bin", ".local/share/data.bin"),
    "with-nested-gitignore": named("model.bin", "subdir/.gitignore"),
    "with-nested-ignore": named("signme-1", "subdir/ignore-me", ignored=("ignore-me",)),
    "unicode-names": named("weights.bin", "模型.bin"),
    "special-chars": named("file (copy).bin", "normal.bin", "path with spaces/model.bin"),
    "deeply-nested": named(DEEP),
    "deeply-nested-with-git": named(DEEP, ".git/HEAD", signed=(DEEP,)),
    "multi-git-dirs": named(
        "model.bin", "submodule/model.bin", ignored=(".git/HEAD", "submodule/.git/HEAD")
    ),
    "multi-gitignore": named(
        "model.bin", "subdir/data.bin", ignored=(".gitignore", "subdir/.gitignore")
    ),
    "with-git-and-ignore": named(
        "model.bin", ignored=(".git/HEAD", ".gitignore", ".gitattributes", "ignored-file.tmp")
    ),
    "with-assets-subdir": named(
        "weights.bin", "config.json", "assets/vocab.txt", "assets/tokenizer.bin"
    ),
    "symlink-cycle": Model(SIMPLE, ("ignore-me",), links={"cycle-link": "."}),
    "symlink-inside": Model(SIMPLE, ("ignore-me",), links={"link-to-signme": "signme-1"}),
    "symlink-outside": Model(SIMPLE, ("ignore-me",), links={"outside-link": "/tmp/not-there"}),
    "symlink-to-outside-file": Model(SIMPLE, ("ignore-me",), links={"outside": "/etc/passwd"}),
}
