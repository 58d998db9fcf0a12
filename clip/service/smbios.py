"""What SMBIOS says of a machine's memory and processors, as iPXE passes it on: bytes in hexadecimal, a list with commas. Pure.

Whatever cannot be meant counts as nothing: a machine can claim anything.
"""

LARGE, UNKNOWN, IN_KIB = 0x7FFF, 0xFFFF, 0x8000
"""Of a module's size: look at the field for large ones; nobody knows; it is in KiB and not in MiB."""
MOST_MODULE = 1 << 42  # bytes


def memory(modules: str, large: str) -> int:
    """Bytes in all modules: each has 2 bytes with its size and, in newer tables, 4 more for one of 32 GiB or more."""
    sizes, others = _words(modules, 2), _words(large, 4)
    others += [0] * (len(sizes) - len(others))
    return sum(_module(size, other) for size, other in zip(sizes, others, strict=False))


def _module(size: int, large: int) -> int:
    if size == UNKNOWN:
        return 0
    if size == LARGE:
        found = (large & 0x7FFFFFFF) << 20
    elif size & IN_KIB:
        found = (size & ~IN_KIB) << 10
    else:
        found = size << 20
    return found if found <= MOST_MODULE else 0


def cores(sockets: str) -> int:
    """Of all processors; one of more than 254 cores does not say how many it has here."""
    return sum(count for count in _words(sockets, 1) if count != 0xFF)


def _words(text: str, size: int) -> list[int]:
    """Little-endian numbers of ``size`` bytes; 0 for what is none."""
    found = []
    for part in text[:512].split(","):
        try:
            raw = bytes.fromhex(part)
        except ValueError:
            raw = b""
        found.append(int.from_bytes(raw, "little") if len(raw) == size else 0)
    return found
