"""Which CPU features count, and that a node must have all of them."""

from pathlib import Path

import pytest

from nodeagent.processor import cpu_flags

X86 = "processor : 0\nflags\t\t: fpu sse2 avx2 hypervisor\n\nprocessor : 1\nflags\t\t: fpu sse2 avx512f\n"
ARM = "processor : 0\nFeatures\t: fp asimd sve\n"


@pytest.mark.parametrize(("text", "expected"), [(X86, "fpu sse2"), (ARM, "asimd fp sve"), ("", ""), ("processor: 0\n", "")])
def test_what_all_processors_have(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert cpu_flags(file) == expected


def test_this_machine_says_something() -> None:
    assert cpu_flags()
