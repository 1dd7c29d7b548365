"""Changes that keep a file's format whole and make its content odd: numbers, types, counts, keys, shapes, sizes."""

import io
import json
import random
import struct
import zipfile
import zlib

import numpy as np

NUMBERS = (
    0, -0.0, 1, -1, 2, 0.5, -7.5, 1e-4, 1e-12, 1e-300, 5e-324, 1e4, 1e6, 1e9, 9.9e11, -9.9e11, 1e12, 1e15, 1e20, 1e38,
    3.5e38, 1e300, float("nan"), float("inf"), float("-inf"), 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63, 2**64 - 1,
)  # fmt: skip
THINGS = (
    None, True, False, "", "a", "../a", "/", "\0", "\ud800", "x" * 5000, [], {}, [[]], [1, [2]], {"a": 1}, "nan", "1",
    10**400, [0] * 16, ["a"] * 16,
)  # fmt: skip
COUNTS = (0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**48, 2**60, 2**61, 2**63 - 1, 2**63, 2**64 - 1)
KINDS = ("f2", "f4", ">f8", "i1", "i8", "u2", "c16", "?", "S9", "U9", "f8,f8", "M8[s]")
FACTORS = (-1, 0, 1e-12, 1e-6, 1e-3, 0.5, 0.99, 1.01, 2, 1e3, 1e6, 1e12, 1e200)


def times(rng: random.Random) -> range:
    return range(rng.choice((1, 1, 2, 4)))


# JSON.


def json_changed(data: bytes, rng: random.Random) -> bytes:
    holder = {"": json.loads(data)}
    for _ in times(rng):
        places = list(places_in(holder))
        parent, key = rng.choice(list(facts_in(holder)) if rng.random() < 0.4 else places)
        is_number = isinstance(parent[key], int | float)
        changes = (number, scaled, scaled) if is_number and rng.random() < 0.7 else CHANGES
        rng.choice(changes)(parent, key, places, rng)
        holder.setdefault("", {})
    return json.dumps(holder[""]).encode()


def places_in(value):
    """Each container of a tree with a key of it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places_in(value[key])


def facts_in(value):
    """The entries of a tree that stand in no list."""
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from facts_in(value[key])


def number(parent, key, places, rng):
    parent[key] = rng.choice(NUMBERS)


def thing(parent, key, places, rng):
    parent[key] = json.loads(json.dumps(rng.choice(THINGS)))  # a copy


def dropped(parent, key, places, rng):
    del parent[key]


def nested(parent, key, places, rng):
    parent[key] = [parent[key]] if rng.random() < 0.5 else {"value": parent[key]}


def emptied(parent, key, places, rng):
    parent[key] = type(parent[key])()


def doubled(parent, key, places, rng):
    if isinstance(parent, list):
        parent.insert(key, parent[key])


def scaled(parent, key, places, rng):
    factor = rng.choice(FACTORS)
    for one, name in places_in({"": parent[key]}):
        if isinstance(one[name], int | float):
            one[name] = one[name] * factor if abs(one[name]) < 1e300 else factor


def exchanged(parent, key, places, rng):
    other, its_key = rng.choice(places)
    one, two = json.dumps(parent[key]), json.dumps(other[its_key])
    if one not in two and two not in one:  # no tree gets into itself
        parent[key], other[its_key] = other[its_key], parent[key]


CHANGES = number, thing, dropped, nested, emptied, doubled, scaled, exchanged


# Arrays.


def array_changed(data: bytes, rng: random.Random) -> bytes:
    """Of a .npy file."""
    return with_huge_shape(data, rng) if rng.random() < 0.1 else packed(odd_array(np.load(io.BytesIO(data)), rng))


def arrays_changed(data: bytes, rng: random.Random) -> bytes:
    """Of a .npz file: one of its arrays, or which there are."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    whole = dict(members)
    for _ in times(rng):
        name, other = rng.choice(sorted(whole)), rng.choice(sorted(whole))
        change = rng.random()
        if change < 0.7:
            members[name] = array_changed(whole[name], rng)
        elif change < 0.8:
            members[name] = whole[other]
        elif change < 0.9:
            members.pop(name, None)
        else:
            members[rng.choice(("../a.npy", "a", "world_mat_99.npy", "depth_x.npy", name.upper()))] = whole[name]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def packed(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()


def with_huge_shape(data: bytes, rng: random.Random) -> bytes:
    """A header that promises more than there is."""
    array, target = np.load(io.BytesIO(data)), io.BytesIO()
    shape = [rng.choice((*COUNTS, 17, 4)) for _ in array.shape]
    kind = rng.choice((array.dtype.str, "<f8", "|V100000", "<U1000000000"))
    np.lib.format.write_array_header_1_0(target, {"descr": kind, "fortran_order": False, "shape": tuple(shape)})
    return target.getvalue() + array.tobytes()


def odd_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    array = np.array(array)
    change = rng.choice(("value", "value", "value", "row", "scale", "kind", "shape", "turn", "empty", "repeat"))
    with np.errstate(all="ignore"):
        if change == "kind":
            return array.astype(rng.choice(KINDS))
        if not array.size or not array.ndim:
            return np.zeros((4, 4))
        if array.dtype.kind not in "fiu":
            return array
        if change == "value":
            put(array, tuple(rng.randrange(n) for n in array.shape), rng.choice(NUMBERS))
        elif change == "row":
            put(array, (..., rng.randrange(array.shape[-1])), rng.choice((*NUMBERS, array.reshape(-1)[0].item())))
        elif change == "scale":
            array = array * rng.choice(FACTORS)
        elif change == "shape":
            return array.reshape(rng.choice(((-1,), (1, *array.shape), (*array.shape, 1), (-1, 1))))
        elif change == "turn":
            return array.T if rng.random() < 0.5 else np.asfortranarray(array)
        elif change == "empty":
            return array[: rng.randrange(len(array))]
        else:
            return np.concatenate([array] * rng.choice((2, 50)))
    return array


def put(array: np.ndarray, place, value: float) -> None:
    array[place] = value if array.dtype.kind == "f" else int(np.clip(np.nan_to_num(float(value)), 0, 127))


# Binary records, and text of numbers.


def fields_changed(data: bytes, rng: random.Random) -> bytes:
    """A count or a number of a binary file."""
    for _ in times(rng):
        start = rng.choice((0, rng.randrange(len(data)), rng.randrange(min(len(data), 200))))
        value = rng.choice((*NUMBERS, *COUNTS))
        form = rng.choice("dQI") if isinstance(value, int) else "d"
        value = value % 2**32 if form == "I" else value % 2**64 if form == "Q" else value
        new = struct.pack("<" + form, value)
        data = (data[:start] + new + data[start + len(new):])[: max(len(data), start + len(new))]
    return data


def words_changed(data: bytes, rng: random.Random) -> bytes:
    """Words and lines of a text."""
    lines = [line.split(b" ") for line in data.split(b"\n")]
    for _ in times(rng):
        line, change = rng.randrange(len(lines)), rng.random()
        word = rng.randrange(max(len(lines[line]), 1))
        if change < 0.6:
            lines[line][word : word + 1] = [repr(rng.choice((*NUMBERS, *COUNTS, "a", -1, 10**400))).encode()]
        elif change < 0.7:
            del lines[line][word:]
        elif change < 0.8:
            lines[line][word:word] = lines[line][word:] * rng.choice((1, 40))
        elif change < 0.9:
            lines.insert(line, lines[rng.randrange(len(lines))])
        else:
            lines[line] = []
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n")).join(map(b" ".join, lines))


# Images.

SIDES = (0, 1, 5, 9, 4000, 13_000, 16_383, 30_000, 65_535, 2**24, 2**31 - 1, 2**32 - 1)


def size_changed(data: bytes, rng: random.Random) -> bytes:
    """The width, the height or both in the header of a PNG, JPEG or WebP."""
    which, sides = rng.choice((1, 2, 3)), [rng.choice(SIDES) for _ in "wh"]

    def chosen(width: int, height: int, bits: int) -> tuple[int, int]:
        return sides[0] % 2**bits if which & 1 else width, sides[1] % 2**bits if which & 2 else height

    if data.startswith(b"\x89PNG"):
        header = b"IHDR" + struct.pack(">II", *chosen(*struct.unpack(">II", data[16:24]), 32)) + data[24:29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    if data.startswith(b"\xff\xd8"):
        start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
        height, width = struct.unpack(">HH", data[start : start + 4])
        return data[:start] + struct.pack(">HH", *chosen(width, height, 16)[::-1]) + data[start + 4 :]
    if data[12:16] == b"VP8 ":
        return data[:26] + struct.pack("<HH", *chosen(*struct.unpack("<HH", data[26:30]), 14)) + data[30:]
    if data[12:16] == b"VP8L":
        [bits] = struct.unpack("<I", data[21:25])
        width, height = chosen(bits % 2**14 + 1, (bits >> 14) % 2**14 + 1, 14)
        bits = bits >> 28 << 28 | (height - 1) % 2**14 << 14 | (width - 1) % 2**14
        return data[:21] + struct.pack("<I", bits) + data[25:]
    width, height = (side.to_bytes(3, "little") for side in chosen(8, 6, 24))
    return data[:24] + width + height + data[30:]
