"""A machine that reads a pickle as data: it builds plain containers and calls no foreign code.

    pickle bytes -> (instruction, argument) ... -> dict, list, tuple, numbers, text, stand-ins

A pickle is a program. The standard unpickler with a narrow `find_class` prevents it from naming
foreign functions, but one six-byte instruction (a large memo index) still fills the memory, and a
nested tuple used as a key overflows the C stack. So the few instructions that weights need are
executed here; a name outside the caller's table, or any other instruction, ends the reading. This
is not a general unpickler: sets, classes, attributes and extension codes are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from diptych.weights.pickle.ops import Fault, Op, show


@dataclass(frozen=True)
class Known:
    """A name that a file may call, and the pure function that replaces it."""

    name: str
    call: Callable[..., object]


@dataclass
class Blank:
    """A placeholder that becomes a value once its state arrives (the BUILD instruction)."""

    finish: Callable[[object], object]
    slots: list[int] = field(default_factory=list)  # its indices in the memo


_VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
_FIXED: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_IGNORED = frozenset({"PROTO", "FRAME"})


def _refusal(deed: str, what: object) -> str:
    named = "" if what is None else f" {show(what)}"
    return (
        f"{deed}{named}, which weights do not need; nothing of the file was executed. "
        "Ask whoever made it for the weights alone, as safetensors"
    )


class Machine:
    """The stack, marks and memo of one pickle.

    Args:
        known: (module, name) -> stand-in; no other name is allowed.
        persistent: turns a persistent id (torch's storages) into a value; None: none are allowed.
    """

    def __init__(
        self,
        known: dict[tuple[str, str], object],
        persistent: Callable[[object], object] | None = None,
    ) -> None:
        self._known = known
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self, ops: Iterable[Op]) -> object:
        """Execute the instructions, return the value. Raises Fault or the decoder's ValueError."""
        for name, argument in ops:
            if name == "STOP":
                return self._pop()
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _FIXED:
                self._stack.append(_FIXED[name]())
            elif name not in _IGNORED:
                step = _STEPS.get(name)
                if step is None:
                    raise Fault(_refusal(f"it uses the pickle instruction {name}", argument))
                step(self, argument)
        raise ValueError("the pickle has no end")

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("the pickle uses a value that does not exist")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        value = self._pop()
        if type(value) is not kind:
            raise Fault(f"the pickle fills a {show(value)} as if it were a {kind.__name__}")
        self._stack.append(value)
        return value

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError("the pickle closes a group that was not opened")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _drop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _dup(self, _: Any) -> None:
        value = self._pop()
        self._stack += [value, value]

    def _tuple(self, count: int | None) -> None:
        items = self._since_mark() if count is None else [self._pop() for _ in range(count)][::-1]
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self, _: Any) -> None:
        values = self._since_mark()
        self._top(list).extend(values)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _set_items(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise Fault("the pickle holds a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not (key is None or isinstance(key, (str, int, float))):
                raise Fault(f"the pickle uses a {show(key)} as a key; expected text or a number")
            target[key] = value

    def _put(self, index: int | None) -> None:
        value = self._pop()
        self._stack.append(value)
        slot = len(self._memo) if index is None else index
        self._memo[slot] = value
        if isinstance(value, Blank):
            value.slots.append(slot)

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError("the pickle recalls a value that it did not keep")
        self._stack.append(self._memo[index])

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._find(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._find(module, name)

    def _find(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Fault("the pickle uses a name that is not text")
        if (module, name) not in self._known:
            raise Fault(_refusal("it asks for", f"{module}.{name}"))
        self._stack.append(self._known[module, name])

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Known) or type(arguments) is not tuple:
            raise Fault(f"the pickle calls a {show(function)}")
        self._stack.append(function.call(*arguments))

    def _build(self, _: Any) -> None:
        state, value = self._pop(), self._pop()
        if isinstance(value, Blank):
            finished = value.finish(state)
            for slot in value.slots:
                self._memo[slot] = finished
            value.slots.clear()
            value = finished
        elif type(value) is not dict:  # a dict's attributes (torch's `_metadata`) are not weights
            raise Fault(f"the pickle sets the attributes of a {show(value)}")
        self._stack.append(value)

    def _persist(self, _: Any) -> None:
        if self._persistent is None:
            raise Fault("the pickle refers to data outside itself")
        self._stack.append(self._persistent(self._pop()))


_STEPS: dict[str, Callable[[Machine, Any], object]] = {
    "MARK": Machine._mark,
    "POP": Machine._drop,
    "POP_MARK": lambda m, _: m._since_mark(),
    "DUP": Machine._dup,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "LIST": Machine._list,
    "DICT": Machine._dict,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._put,
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persist,
}
