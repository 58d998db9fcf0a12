"""Random tests draw the same cases every time; HYPOTHESIS_PROFILE=random draws others (and prints how to draw them again)."""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("random", print_blob=True, deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
