"""Random tests draw the same cases every time; HYPOTHESIS_PROFILE=random draws others (and prints how to draw them again)."""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
