"""One controller a file: read, plan, write."""
