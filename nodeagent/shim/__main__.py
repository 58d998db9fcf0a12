"""``mx-shim RUN_DIR TMP_DIR SHM_DIR [HOST PORT BRIDGE MAC ADDRESS [GATEWAY]]``."""

import sys

from nodeagent.shim.launch import main

sys.exit(main(*sys.argv[1:]))
