"""A reader of the pickles that ``torch.save`` writes. It builds names and numbers, never objects.

A pickle is a program for a stack machine (Python's ``pickletools`` documents it). This machine
knows the two dozen instructions that describe a dictionary of tensors. Globals are compared as
text with a short list and never imported; REDUCE makes a record, it calls nothing. Any other
instruction, global or shape of arguments ends in ``Refused``.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_OPERATIONS = 500_000
"""Thirty-two describe a tensor, so these do for fifteen thousand; they take under a second."""
MAX_MEMO = 400_000
MAX_STRING = 4096
MAX_GLOBAL = 256
MAX_INTEGER_BYTES = 16

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
DTYPES = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
}


class Refused(Exception):
    """The pickle does something that a dictionary of tensors does not need."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of something in a Python module. Only ever compared."""

    module: str
    name: str


_GLOBALS = {
    (module.encode(), name.encode()): Global(module, name)
    for module, names in {
        "collections": ("OrderedDict",),
        "torch._utils": ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"),
        "torch.storage": ("UntypedStorage",),
        "torch": (*STORAGES, *DTYPES),
    }.items()
    for name in names
}


@dataclass(frozen=True, slots=True)
class Storage:
    """A persistent id: entries of ``dtype`` (None: raw bytes) under ``key``."""

    key: str
    dtype: str | None
    count: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: entries of a storage from ``offset``, by ``shape`` and ``stride``, in entries."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def run(data: bytes | memoryview, start: int = 0) -> tuple[Any, int]:
    """Run one pickle from ``start``; return what it describes and where it ends.

    Raises:
        Refused: it is not a plain description of tensors, or is over a limit.
    """
    machine = _Machine(memoryview(data), start)
    try:
        return machine.run(), machine.position
    except (IndexError, KeyError, TypeError, ValueError, struct.error):
        raise Refused("it is not a well-formed pickle") from None


_MARK = object()


@dataclass(slots=True)
class _Machine:
    data: memoryview
    position: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> Any:
        for _ in range(MAX_OPERATIONS):
            code = self.data[self.position]
            self.position += 1
            if code == 0x2E:  # STOP
                if len(self.stack) != 1 or self.stack[0] is _MARK:
                    raise Refused("it is not a well-formed pickle")
                return self.stack[0]
            step = _STEPS.get(code)
            if step is None:
                raise Refused(f"its pickle uses instruction 0x{code:02x}, which no tensor needs")
            step(self)
        raise Refused(f"its pickle has more than {MAX_OPERATIONS:,} instructions")

    def take(self, length: int) -> memoryview:
        end = self.position + length
        if end > len(self.data):
            raise Refused("its pickle is cut off")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def text(self, length: int) -> str:
        if length > MAX_STRING:
            raise Refused(f"its pickle has a string of {length:,} bytes")
        return str(self.take(length), "utf-8")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise Refused("it is not a well-formed pickle")
        return value

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        items.reverse()
        return items

    def name_global(self) -> None:
        window = bytes(self.data[self.position : self.position + MAX_GLOBAL])
        module, newline, rest = window.partition(b"\n")
        name, second_newline, _ = rest.partition(b"\n")
        if not newline or not second_newline:
            raise Refused("its pickle names something too long to be a tensor's part")
        self.position += len(module) + len(name) + 2
        known = _GLOBALS.get((module, name))
        if known is None:
            asked = f"{module.decode('ascii')}.{name.decode('ascii')}"
            raise Refused(
                f"its pickle asks for {asked[:120]!r}: it could run code, and was not loaded"
            )
        self.stack.append(known)

    def put(self, index: int) -> None:
        if len(self.memo) >= MAX_MEMO or index < 0:
            raise Refused("its pickle remembers too much")
        if self.stack[-1] is _MARK:
            raise Refused("it is not a well-formed pickle")
        self.memo[index] = self.stack[-1]

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            raise Refused("it is not a well-formed pickle")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (str, int):
                raise Refused("its pickle has a dictionary whose keys are not names")
            if key in target:
                raise Refused(f"its pickle names {str(key)[:80]!r} twice")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("it is not a well-formed pickle")
        self.stack[-1].extend(items)

    def persistent(self) -> None:
        match self.pop():
            case ("storage", Global(module, name), str(key), str(), int(count), *rest) if (
                rest in ([], [None]) and 0 <= count <= 1 << 48
            ):
                if module == "torch" and name in STORAGES:
                    self.stack.append(Storage(key, STORAGES[name], count))
                    return
                if (module, name) == ("torch.storage", "UntypedStorage"):
                    self.stack.append(Storage(key, None, count))
                    return
        raise Refused("its pickle refers to something other than a plain storage")

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise Refused("it is not a well-formed pickle")
        self.stack.append(_record(function.name, arguments))

    def build(self) -> None:
        """Accept the ``_metadata`` that modules leave on their OrderedDict, and drop it."""
        state, target = self.pop(), self.stack[-1]
        if type(target) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise Refused("its pickle sets attributes that no tensor has")


def _record(function: str, arguments: tuple[Any, ...]) -> Any:
    """Return what a call of the allowed ``function`` would describe."""
    match function, arguments:
        case "OrderedDict", ():
            return {}
        case "_rebuild_parameter", (View() as view, bool(), dict()):
            return view
        case "_rebuild_tensor_v2", (
            Storage(_, str(dtype)) as storage,
            int(offset),
            tuple(shape),
            tuple(stride),
            bool(),
            dict(),
            *_,
        ):
            return View(storage, dtype, offset, shape, stride)
        case "_rebuild_tensor_v3", (
            Storage(_, None) as storage,
            int(offset),
            tuple(shape),
            tuple(stride),
            bool(),
            dict(),
            Global("torch", name),
            *_,
        ) if name in DTYPES:
            return View(storage, DTYPES[name], offset, shape, stride)
    raise Refused("its pickle describes a tensor in a way that torch.save does not")


def _protocol(machine: _Machine) -> None:
    if machine.take(1)[0] != 2:
        raise Refused("its pickle is not of protocol 2, which torch.save writes")


def _long(machine: _Machine) -> None:
    length = machine.take(1)[0]
    if length > MAX_INTEGER_BYTES:
        raise Refused("its pickle has an integer too large for any size")
    machine.stack.append(int.from_bytes(machine.take(length), "little", signed=True))


def _tuple_of(length: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        items = tuple(machine.stack[-length:])
        if len(items) < length or _MARK in items:
            raise Refused("it is not a well-formed pickle")
        machine.stack[-length:] = [items]

    return step


def _set_one(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


# Instruction by its byte; the letters are pickletools' own.
_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _protocol,  # PROTO
    ord("c"): _Machine.name_global,  # GLOBAL
    ord("}"): lambda m: m.stack.append({}),  # EMPTY_DICT
    ord("]"): lambda m: m.stack.append([]),  # EMPTY_LIST
    ord(")"): lambda m: m.stack.append(()),  # EMPTY_TUPLE
    ord("("): lambda m: m.stack.append(_MARK),  # MARK
    ord("t"): lambda m: m.stack.append(tuple(m.pop_to_mark())),  # TUPLE
    0x85: _tuple_of(1),  # TUPLE1
    0x86: _tuple_of(2),  # TUPLE2
    0x87: _tuple_of(3),  # TUPLE3
    ord("X"): lambda m: m.stack.append(m.text(m.number("<I"))),  # BINUNICODE
    ord("J"): lambda m: m.stack.append(m.number("<i")),  # BININT
    ord("K"): lambda m: m.stack.append(m.number("<B")),  # BININT1
    ord("M"): lambda m: m.stack.append(m.number("<H")),  # BININT2
    0x8A: _long,  # LONG1
    ord("G"): lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),  # BINFLOAT
    ord("N"): lambda m: m.stack.append(None),  # NONE
    0x88: lambda m: m.stack.append(True),  # NEWTRUE
    0x89: lambda m: m.stack.append(False),  # NEWFALSE
    ord("q"): lambda m: m.put(m.number("<B")),  # BINPUT
    ord("r"): lambda m: m.put(m.number("<I")),  # LONG_BINPUT
    ord("h"): lambda m: m.stack.append(m.memo[m.number("<B")]),  # BINGET
    ord("j"): lambda m: m.stack.append(m.memo[m.number("<I")]),  # LONG_BINGET
    ord("Q"): _Machine.persistent,  # BINPERSID
    ord("R"): _Machine.reduce,  # REDUCE
    ord("s"): _set_one,  # SETITEM
    ord("u"): lambda m: m.set_items(m.pop_to_mark()),  # SETITEMS
    ord("a"): lambda m: m.append([m.pop()]),  # APPEND
    ord("e"): lambda m: m.append(m.pop_to_mark()),  # APPENDS
    ord("b"): _Machine.build,  # BUILD
}
