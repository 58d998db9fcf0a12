"""Only code from files that nobody has written into is let go, and the process goes on."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from nodeagent import footprint

REST = "Size: 8 kB\nRss: 8 kB\nAnonymous: {} kB\nVmFlags: rd\n"


def mapping(rights: str, inode: int, name: str, anonymous: int = 0, at: int = 0x1000) -> str:
    return f"{at:x}-{at + 0x1000:x} {rights} 00000000 08:01 {inode} {' ' * 20}{name}\n" + REST.format(anonymous)


@pytest.mark.parametrize(
    ("line", "goes"),
    [
        (mapping("r-xp", 77, "/usr/lib/libc.so.6"), True),
        (mapping("r-xp", 77, "/usr/lib/libc.so.6", anonymous=4), False),
        (mapping("r--p", 77, "/usr/lib/libc.so.6"), False),
        (mapping("rw-p", 77, "/usr/lib/libc.so.6"), False),
        (mapping("r-xp", 0, "[vdso]"), False),
        (mapping("r-xp", 0, ""), False),
    ],
)
def test_what_is_let_go(line: str, goes: bool) -> None:
    other = mapping("rw-p", 0, "[heap]", anonymous=8, at=0x8000)
    assert footprint.idle_text(other + line + other) == ([(0x1000, 0x2000)] if goes else [])


def test_a_process_that_shrank_is_smaller_and_goes_on() -> None:
    script = """
import asyncio, ssl, grpc, pydantic
from nodeagent import footprint
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssFile")).split()[1])
before = resident()
footprint.shrink()
after = resident()
asyncio.run(asyncio.sleep(0.01))
ssl.create_default_context()
print(before, after)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=Path.cwd())
    before, after = map(int, done.stdout.split())
    assert after < 0.8 * before


async def test_it_shrinks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times = asyncio.Semaphore(0)
    monkeypatch.setattr(footprint, "FIRST", 0.0)
    monkeypatch.setattr(footprint, "AGAIN", 0.0)
    monkeypatch.setattr(footprint, "shrink", times.release)
    task = asyncio.create_task(footprint.let_go())
    for _ in range(3):
        await asyncio.wait_for(times.acquire(), 10)
    task.cancel()
