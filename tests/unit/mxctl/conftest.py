from pathlib import Path

import pytest

from tests.unit.mxctl.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(str(tmp_path / "shared"))
