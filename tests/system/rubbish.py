"""Writes standard input as a node's load again and again, against its agent: ``python -m tests.system.rubbish LAB NODE SECONDS``.

A process of its own, because whoever talks to a lab's etcd enters its network. Prints how often it wrote. MXCONFIG names the lab.
"""

import asyncio
import sys
import time

from crds import keys
from store import context as contexts
from store.kv import Put


async def write(lab: str, node: str, seconds: float, value: bytes) -> int:
    """How often it was written."""
    kv, count, end = await contexts.connect(contexts.current(f"lab-{lab}")), 0, time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            await kv.txn((), [Put(keys.load(node), value)])
            count += 1
            await asyncio.sleep(0.1)
    finally:
        await kv.close()
    return count


if __name__ == "__main__":
    print(asyncio.run(write(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.stdin.buffer.read())))
