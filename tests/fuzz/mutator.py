"""Mutated inputs: a file that was sound, changed in a few places, by what its format is made of.

Everything follows from the random generator that is handed in: the same generator gives the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from .wire import BYTES, VARINT, Field, Message, decode, encode

NUMBERS = (0, 1, -1, 2, 3, 7, 8, 16, 17, 127, 255, 10**5, 2**31 - 1, 2**31, 2**32, -(2**31), 2**62, 2**63 - 1, -(2**63))
TEXTS = (
    "",
    "x",
    "y",
    "If",
    "Loop",
    "Cast",
    "ai.onnx.ml",
    "com.microsoft",
    "..",
    "/etc/passwd",
    "\x00",
    "a" * 5000,
    "é",
    "-1",
)
LARGEST = 256 * 2**10
"""Of a mutant, in bytes: doubling twenty times is no fault of the reader's."""

Mutation = Callable[[bytes, Sequence[bytes], Random], bytes]


def mutated(seeds: Sequence[bytes], random: Random) -> bytes:
    """One of the seeds, changed in one to four places; others of them give what is spliced in."""
    data = random.choice(seeds)
    mutation = _mutation_of(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        # What is no such file at all is refused at once: most changes leave the format whole.
        data = (mutation if random.random() < 0.9 else mutate_bytes)(data, seeds, random)
    return data[:LARGEST]


def _mutation_of(data: bytes) -> Mutation:
    if data[8:9] == b"{":
        return mutate_safetensors
    if data[:1] in b"{[":
        return mutate_json
    if data.isascii() and b"\x00" not in data and b"\n" in data and data[:1].isalpha():
        return mutate_lines
    return mutate_protobuf if decode(data) is not None else mutate_bytes


def mutate_bytes(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """Bits flipped, bytes set, a part cut out, doubled, or taken from another seed."""
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((1, 1, 2, 4, 8, 64)))
    match random.randrange(6):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + data[start:end] * random.choice((1, 3)) + data[end:]
        case 3:
            other = random.choice(seeds)
            begin = random.randrange(len(other) + 1)
            return data[:start] + other[begin : begin + end - start] + data[end:]
        case 4 if start < len(data):
            return data[:start] + bytes([data[start] ^ 1 << random.randrange(8)]) + data[start + 1 :]
        case _:
            return data[:start] + random.choice((b"\x00", b"\xff", b"\x80", random.randbytes(4))) + data[end:]


def mutate_protobuf(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """A field changed, emptied, doubled, moved, or taken from another message; all lengths fit afterwards."""
    message = decode(data)
    if not message:
        return mutate_bytes(data, seeds, random)
    messages = _messages(message)
    numbers = [(found, index) for found in messages for index, field in enumerate(found) if field.wire == VARINT]
    if numbers and random.random() < 0.5:  # sizes, axes, types: what readers compute with
        inside, index = random.choice(numbers)
        inside[index] = _changed(inside[index], random)
    else:
        other = decode(random.choice(seeds)) or message
        _restructure(random.choice(messages), [field for found in _messages(other) for field in found], random)
    return encode(message)


def _restructure(inside: Message, others: Message, random: Random) -> None:
    index = random.randrange(len(inside))
    field = inside[index]
    match random.randrange(7):
        case 0:
            del inside[index]
        case 1:
            inside.insert(random.randrange(len(inside) + 1), field)
        case 2:
            inside.insert(index, random.choice(others))
        case 3:  # of the same kind, as a node for a node
            inside[index] = random.choice([other for other in others if other[:2] == field[:2]] or others)
        case 4:
            inside[index] = Field(random.choice((random.randrange(1, 27), field.number + 1)), field.wire, field.value)
        case _:
            inside[index] = _changed(field, random)


def _messages(message: Message) -> list[Message]:
    """All messages of a tree that have fields, itself included."""
    inner = [field.value for field in message if isinstance(field.value, list) and field.value]
    return [message, *(found for child in inner for found in _messages(child))]


def _changed(field: Field, random: Random) -> Field:
    value: Any = field.value
    if isinstance(value, int):
        value = random.choice((random.choice(NUMBERS), random.randrange(30), value ^ 1 << random.randrange(63)))
    elif isinstance(value, list):
        value = []
    elif field.wire == BYTES:
        value = random.choice((random.choice(TEXTS).encode(), value[:-1], value * 2, bytes(random.randrange(20))))
    else:
        value = random.randbytes(len(value))
    return Field(field.number, field.wire, value)


def mutate_json(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """A value changed, left out, doubled, nested deep, or taken from another document."""
    try:
        document = json.loads(data)
        _change_json(document, json.loads(random.choice(seeds)), random)
        return json.dumps(document).encode()
    except (ValueError, RecursionError, IndexError):  # it was changed before, and is no JSON any more, or empty
        return mutate_bytes(data, seeds, random)


def _change_json(document: Any, other: Any, random: Random) -> None:
    holder, key = _place(document, random)
    match random.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(TEXTS)] = holder.pop(key)
        case 1:
            holder.insert(key, holder[key])
        case 2:
            giver, place = _place(other, random)
            holder[key] = json.loads(json.dumps(giver[place]))
        case 3:
            for _ in range(random.choice((1, 40, 400))):
                holder[key] = [holder[key]]
        case _:
            scalars = (None, True, 1.5, float("nan"), 1e400, [], {}, str(holder[key]) * 2)
            holder[key] = random.choice((*scalars, random.choice(NUMBERS), random.choice(TEXTS), 2**70))


def _place(document: Any, random: Random) -> tuple[Any, Any]:
    """A value but the outermost, as what holds it and its key or index. Long lists get no more than short ones.

    Raises IndexError where there is none.
    """
    place: tuple[Any, Any] | None = None
    while isinstance(document, (dict, list)) and document and (place is None or random.random() < 0.8):
        place = (document, random.choice(list(document) if isinstance(document, dict) else range(len(document))))
        document = document[place[1]]
    if place is None:
        raise IndexError("nothing is in it")
    return place


def mutate_safetensors(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """Its header changed as the JSON that it is, with the length that fits; seldom another length."""
    if len(data) <= 8:  # it was changed before
        return mutate_bytes(data, seeds, random)
    (length,) = struct.unpack("<Q", data[:8])
    header, values = data[8 : 8 + length], data[8 + length :]
    if random.random() < 0.1:
        return struct.pack("<Q", random.choice(NUMBERS) % 2**64) + header + values
    headers = [seed[8 : 8 + struct.unpack("<Q", seed[:8])[0]] for seed in seeds if len(seed) > 8]
    header = mutate_json(header, headers, random)
    return struct.pack("<Q", len(header)) + header + values


def mutate_lines(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """A line left out, doubled, moved, indented, given another value, or taken from another text."""
    lines = data.split(b"\n")
    index = random.randrange(len(lines))
    key, colon, value = lines[index].partition(b": ")
    match random.randrange(7):
        case 0:
            del lines[index]
        case 1:
            lines.insert(index, lines[index])
        case 2:
            lines.insert(index, lines.pop(random.randrange(len(lines))))
        case 3:
            lines[index] = b" " * random.choice((1, 2, 4)) + lines[index]
        case 4:
            lines.insert(index, random.choice(random.choice(seeds).split(b"\n")))
        case 5 if colon:
            new = random.choice((str(random.choice(NUMBERS)), random.choice(TEXTS), "[]", "{}", "~", "no", "1e5", "*a"))
            lines[index] = key + colon + new.encode()
        case _:
            lines[index] = key + colon + mutate_bytes(value, seeds, random)
    return b"\n".join(lines)
