"""Tests; see CONTRIBUTING.md for the rules."""
