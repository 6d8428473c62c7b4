"""Pickles, in archives and before there were archives, that lie, grow, or would run something."""

import pickle
import struct
from typing import Any

from .cases import MIB, PART, Case, Make, table
from .pickles import REBUILD, START, running, state, storage, tensor, text, whole
from .zip_cases import CANARY, GOOD, put, zipped

MAGIC = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


SYSTEM = START + b"}(" + text("little_endian") + b"\x88u."


PROTOCOL = START + b"M\xe9\x03."


def legacy(
    tree: bytes = GOOD,
    keys: bytes = START + b"](" + text("0") + b"e.",
    data: bytes = struct.pack("<q", 4) + bytes(16),
    start: bytes = MAGIC + PROTOCOL + SYSTEM,
) -> bytes:
    """Return a file of before PyTorch 1.6."""
    return start + tree + keys + data


def put_pickle(given: Any) -> Make:
    """The pickle lies in an honest archive."""
    return lambda room: room.instead(PART, zipped(given() if callable(given) else given))


def put_both(given: Any) -> Make:
    """The pickle is the object of a legacy file, which lies under the name of a shard of today."""
    return lambda room: room.instead(
        "pytorch_model.bin", legacy(given() if callable(given) else given)
    )


def doubling(levels: int) -> bytes:
    """Lists that each hold the one before twice: 2^levels when walked."""
    made = START + b"(]q\0"
    for n in range(levels):
        made += b"](h%ch%ce" % (n, n) + b"q%c" % (n + 1)
    return made + b"t."


def wide(names: int) -> bytes:
    """A long name above many tensors: each has it in its own name."""
    inner = b"}(" + b"".join(text(str(n)) + b"h\0" for n in range(names)) + b"u"
    return START + b"}(" + text("t") + tensor() + b"q\0" + text("x" * 4000) + inner + b"u."


PICKLES = {
    "empty": (b"", "well-formed"),
    "only a protocol": (START, "well-formed"),
    "protocol 0": (b"N.", "something other"),
    "protocol 3": (b"\x80\x03N.", "protocol 2"),
    "protocol 4, framed": (b"\x80\x04\x95" + bytes(8) + b"N.", "protocol 2"),
    "protocol 5": (b"\x80\x05N.", "protocol 2"),
    "protocol 255": (b"\x80\xffN.", "protocol 2"),
    "a command, by GLOBAL and REDUCE": (running(CANARY), "could run code"),
    "a command, by INST": (START + b"(" + text(CANARY) + b"iposix\nsystem\n.", "0x69"),
    "a command, by OBJ": (START + b"(cposix\nsystem\n" + text(CANARY) + b"o.", "could run code"),
    "a command, by NEWOBJ": (
        START + b"cposix\nsystem\n" + text(CANARY) + b"\x85\x81.",
        "could run",
    ),
    "a command, by STACK_GLOBAL": (
        START + text("posix") + text("system") + b"\x93" + text(CANARY) + b"\x85R.",
        "0x93",
    ),
    "eval": (START + b"cbuiltins\neval\n" + text("1") + b"\x85R.", "could run code"),
    "getattr": (START + b"cbuiltins\ngetattr\n.", "could run code"),
    "torch.load": (START + b"ctorch\nload\n" + text("a.pth") + b"\x85R.", "could run code"),
    "torch.hub.load": (START + b"ctorch.hub\nload\n.", "could run code"),
    "numpy's reconstruct": (START + b"cnumpy.core.multiarray\n_reconstruct\n.", "could run code"),
    "a Global that looks allowed": (START + b"ctorch._utils\n_rebuild_tensor\n.", "could run code"),
    "a Global in other letters": (START + b"ctorch\nFloatStorage\n" + b".", "something"),
    "a Global with a dot": (START + b"ctorch\n_C._utils\n.", "could run code"),
    "a Global that is not ASCII": (START + "ctörch\nload\n".encode() + b".", "well-formed"),
    "a Global without an end": (START + b"c" + b"a" * MIB, "too long"),
    "extension codes": (START + b"\x82\x01.", "0x82"),
    "a persistent id as text": (START + b"Pstorage\n.", "0x50"),
    "a persistent id that is no tuple": (START + text("storage") + b"Q.", "plain storage"),
    "a persistent id of another kind": (
        START
        + b"("
        + text("file")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + b"K\4tQ.",
        "plain storage",
    ),
    "a storage of OrderedDicts": (START + storage("collections\nOrderedDict") + b".", "plain"),
    "a storage of 2^62 entries": (state(a=tensor(count=2**62)), "plain storage"),
    "a storage of -1 entries": (state(a=tensor(count=-1)), "plain storage"),
    "a storage of True entries": (state(a=tensor(count=b"\x88")), "another size|plain"),
    "a storage of 4.0 entries": (state(a=tensor(count=b"G" + struct.pack(">d", 4))), "plain"),
    "a storage named ../0": (state(a=tensor(key="../0")), "not there"),
    "a storage named with NUL": (state(a=tensor(key="0\0")), "not there"),
    "a storage that is not there": (state(a=tensor(key="1")), "not there"),
    "a type that lies: doubles": (state(a=tensor(kind="torch\nDoubleStorage")), "another size"),
    "a type that lies: bytes": (state(a=tensor(kind="torch\nByteStorage")), "another size"),
    "a type of no tensor": (state(a=tensor(kind="torch\nQUInt8Storage")), "could run code"),
    "a stride of -1": (state(a=tensor(stride=(-2, -1))), "sizes"),
    "a stride of 2^62": (state(a=tensor(stride=(2**62, 1))), "sizes"),
    "a stride of zero": (state(a=tensor(shape=(4, 4), stride=(0, 1))), "beyond|row by row"),
    "a transposed view": (state(a=tensor(stride=(1, 2))), "row by row"),
    "strides that jump": (state(a=tensor(shape=(2,), stride=(3,))), "row by row"),
    "an offset of -1": (state(a=tensor(offset=-1)), "sizes"),
    "an offset of 1": (state(a=tensor(offset=1)), "beyond its storage"),
    "an offset of 2^48": (state(a=tensor(offset=2**48)), "beyond its storage"),
    "an offset that is true": (state(a=tensor(offset=b"\x88")), "sizes|not|beyond"),
    "an offset as text": (state(a=tensor(offset=text("0"))), "torch.save does not"),
    "a shape beyond the storage": (state(a=tensor(shape=(2, 3), stride=(3, 1))), "beyond"),
    "a shape of 2^47": (state(a=tensor(shape=(2**47,), stride=(1,))), "beyond"),
    "a shape whose product overflows": (
        state(a=tensor(shape=(2**32, 2**32, 4), stride=(4, 4, 1))),
        "beyond",
    ),
    "a shape of -2": (state(a=tensor(shape=(-2, -2))), "sizes"),
    "a shape of booleans": (state(a=tensor(shape=(b"\x88", b"\x88"))), "sizes"),
    "a shape of floats": (state(a=tensor(shape=(b"G" + struct.pack(">d", 2.0),) * 2)), "sizes"),
    "a shape of text": (state(a=tensor(shape=(text("2"), text("2")))), "sizes"),
    "a shape that is a list": (state(a=tensor(shape=b"](K\2K\2e")), "torch.save does not"),
    "a rank of 17": (state(a=tensor(shape=(1,) * 17, stride=(1,) * 17)), "shape"),
    "a rank of 100,000": (
        lambda: state(a=tensor(shape=b"(" + b"K\1" * 100_000 + b"t", stride=(1,))),
        "shape",
    ),
    "strides of another rank": (state(a=tensor(stride=(1,))), "shape"),
    "arguments that are missing": (state(a=REBUILD + b"(" + storage() + b"tR"), "torch.save does"),
    "a call without arguments": (state(a=REBUILD + b")R"), "torch.save does"),
    "a call of a number": (START + b"K\1)R.", "well-formed"),
    "an OrderedDict with arguments": (START + b"ccollections\nOrderedDict\n]\x85R.", "torch.save"),
    "attributes set": (state(a=tensor() + b"}(" + text("x") + b"K\1ub"), "well-formed|attributes"),
    "a name twice": (state(a=tensor()).replace(b"u.", text("a") + tensor() + b"u."), "twice"),
    "a name that is a number, and a text": (
        START + b"}(K\1" + tensor() + text("1") + tensor() + b"u.",
        "two of its tensors have one name",
    ),
    "a name that is None": (START + b"}N" + tensor() + b"s.", "keys are not names"),
    "a name that is a tuple": (START + b"})" + tensor() + b"s.", "keys are not names"),
    "a name that is a list": (START + b"}]" + tensor() + b"s.", "keys are not names"),
    "a name of a surrogate": (state(**{"\ud800": tensor()}), "well-formed"),
    "an empty name": (state(**{"": tensor()}), "no usable name"),
    "names that join to one": (
        START + b"}(" + text("a.b") + tensor() + text("a") + b"}" + text("b") + tensor() + b"su.",
        "two of its tensors have one name",
    ),
    "two tensors that overlap": (
        state(a=tensor(), b=tensor(offset=1, shape=(2,), stride=(1,))),
        "overlap",
    ),
    "a tensor and nothing around it": (START + tensor() + b".", "no usable name"),
    "a number": (START + b"K\1.", "something other"),
    "bytes after STOP": (GOOD + b"N", "bytes follow"),
    "a stack that is not empty": (START + b"NN.", "well-formed"),
    "only a mark": (START + b"(.", "well-formed"),
    "a mark popped": (START + b"(\x85.", "well-formed"),
    "a mark remembered": (START + b"(q\0.", "well-formed"),
    "a pop of nothing": (START + b"a.", "well-formed"),
    "POP": (START + b"NN0.", "0x30"),
    "a memo that is not there": (START + b"h\7.", "well-formed"),
    "a memo put from nothing": (START + b"q\0.", "well-formed"),
    "a list in itself": (START + b"]q\0h\0a.", "more than it could hold"),
    "a dictionary in itself": (
        START + b"}q\0" + text("a") + b"h\0s.",
        "more than it could hold",
    ),
    "lists that double sixty times": (doubling(60), "more than it could hold"),
    "a memo bomb of 400,001": (
        lambda: START + b"N" + b"".join(b"r" + struct.pack("<I", n) for n in range(400_001)) + b".",
        "remembers too much",
    ),
    "an opcode bomb: five million": (START + b"N" * 5_000_000, "instructions"),
    "an opcode bomb: dictionaries": (START + b"}" * 5_000_000, "instructions"),
    "an opcode bomb: marks": (START + b"(" * 5_000_000, "instructions"),
    "an opcode bomb: nested tuples": (START + b")" + b"\x85" * 5_000_000 + b".", "instructions"),
    "an opcode bomb: nested lists": (START + b"]" * 240_000 + b"a" * 239_999 + b".", "hold|other"),
    "an opcode bomb: Globals": (START + b"ctorch\nFloatStorage\n" * 1_000_000, "instructions"),
    "an opcode bomb: integers": (START + (b"\x8a\x10" + b"\xff" * 16) * 900_000, "instructions"),
    "an opcode bomb: strings": (START + text("ab") * 2_000_000, "instructions"),
    "30 MiB of astral strings": (
        lambda: START + text("x" * 4092 + "\U0001f600") * 7_600,
        "well-formed",
    ),
    "a string of 2 GiB claimed": (START + b"X\xff\xff\xff\x7f", "string of"),
    "a string of 4 GiB claimed": (START + b"X\xff\xff\xff\xff", "string of"),
    "a string of 5,000 bytes": (START + text("a" * 5000), "string of"),
    "a string cut off": (START + b"X\x04\0\0\0ab", "cut off"),
    "a string that is not UTF-8": (START + b"X\2\0\0\0\xff\xfe.", "well-formed"),
    "bytes of 2 GiB claimed": (START + b"B\xff\xff\xff\x7f", "0x42"),
    "bytes of 2^63 claimed": (START + b"\x8e" + struct.pack("<Q", 2**63), "0x8e"),
    "a bytearray of 2^63 claimed": (START + b"\x96" + struct.pack("<Q", 2**63), "0x96"),
    "an integer of 255 bytes": (START + b"\x8a\xff" + b"\1" * 255, "too large"),
    "an integer of 2^31 bytes": (START + b"\x8b\xff\xff\xff\x7f", "0x8b"),
    "an integer of 10^5 digits as text": (START + b"L" + b"9" * 100_000 + b"L\n.", "0x4c"),
    "nested 200 deep": (
        START + b"}" + text("a") + (b"}" + text("a")) * 200 + tensor() + b"s" * 201 + b".",
        "more than it could hold",
    ),
    "a long name above many tensors": (wide(100_000), "instructions|hold"),
    "a set": (START + b"\x8f.", "0x8f"),
    "an out-of-band buffer": (START + b"\x97.", "0x97"),
}


LEGACY = {
    "another magic": (START + b"\x8a\x0a" + bytes(10) + b".", "did not write"),
    "only the magic": (MAGIC, "well-formed"),
    "protocol 1000": (legacy(start=MAGIC + START + b"M\xe8\x03." + SYSTEM), "not supported"),
    "big-endian": (
        legacy(start=MAGIC + PROTOCOL + START + b"}(" + text("little_endian") + b"\x89u."),
        "not supported",
    ),
    "a system that is a list": (legacy(start=MAGIC + PROTOCOL + START + b"]."), "not supported"),
    "a command instead of the protocol": (MAGIC + running(CANARY), "could run code"),
    "a command instead of the system": (MAGIC + PROTOCOL + running(CANARY), "could run code"),
    "a command instead of the tensors": (legacy(running(CANARY)), "could run code"),
    "a command instead of the keys": (legacy(keys=running(CANARY)), "could run code"),
    "keys that are a dictionary": (legacy(keys=START + b"}."), "not well-formed"),
    "keys that are numbers": (legacy(keys=START + b"](K\0e."), "not well-formed"),
    "a key twice": (
        legacy(keys=START + b"](" + text("0") + text("0") + b"e."),
        "repeats a key",
    ),
    "a key that no tensor uses": (
        legacy(keys=START + b"](" + text("9") + b"e."),
        "no tensor uses",
    ),
    "no key": (legacy(keys=START + b"].", data=b""), "not there"),
    "a storage of 5 entries": (legacy(data=struct.pack("<q", 5) + bytes(20)), "two sizes"),
    "a storage of -1 entries": (legacy(data=struct.pack("<q", -1)), "two sizes"),
    "a storage of 2^62 entries": (legacy(data=struct.pack("<q", 2**62)), "two sizes"),
    "cut off in a storage": (legacy()[:-1], "cut off"),
    "cut off before a storage": (legacy(data=b""), "cut off"),
    "cut off in a size": (legacy(data=b"\4\0\0"), "cut off"),
    "trailing bytes": (legacy() + b"x", "after its last storage"),
    "40 MiB of instructions": (lambda: MAGIC + START + b"N" * 40 * MIB, "instructions"),
    "a tar, as before version 0.1.10": (
        b"sys_info" + bytes(92) + b"0000644\0" + bytes(149) + b"ustar\x0000" + bytes(1000),
        "neither",
    ),
    "a bare pickle of protocol 4": (pickle.dumps({"a": 1}, 4), "did not write"),
    "a bare command of protocol 0": (running(CANARY, protocol=0), "neither"),
    "PyTorch's flatbuffer": (bytes(4) + b"PTMF" + bytes(100), "neither"),
    "an executable": (b"\x7fELF\2\1\1" + bytes(200), "neither"),
    "a Python file": (f"import os; os.system('{CANARY}')\n".encode(), "neither"),
    "a web page": (b"\n <html><body>Please sign in</body></html>", "web page"),
    "zeros": (bytes(100_000), "zeros"),
    "empty": (b"", "empty"),
    "a GGUF of a billion tensors": (b"GGUF\3\0\0\0" + struct.pack("<2Q", 10**9, 0), "GGUF|tensors"),
    "a safetensors header in a .pth": (struct.pack("<Q", 2**63) + b"{}", "more than the format"),
    "a memo shared between its pickles": (
        legacy(keys=START + b"h\0."),
        "well-formed",
    ),
}


BOTH = {
    name: PICKLES[name]
    for name in (
        "a command, by GLOBAL and REDUCE",
        "a stride of -1",
        "an offset of 1",
        "lists that double sixty times",
        "two tensors that overlap",
        "a name that is a number, and a text",
        "an opcode bomb: five million",
    )
}


CASES = [
    *table("pickle", PICKLES, put_pickle, code="weights-refused"),
    *table("legacy pth", LEGACY, put, code="weights-refused"),
    *table("legacy pickle", BOTH, put_both, code="weights-refused"),
    Case(
        "zip: nothing but whole numbers",
        put_pickle(state(a=whole(7))),
        "not|no",
        "weights-not-compared",
    ),
]
