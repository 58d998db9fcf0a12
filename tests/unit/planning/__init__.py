"""Unit tests of planning: tables and properties."""
