"""Moves in a lab with one planned fault each, at every boundary of every step; after each the whole truth is checked.

``python -m tests.system.faults --lab NAME --trials N --seed S`` runs a sample of the product mode x boundary x fault in one lab;
test_faults.py runs a small sample every day and the whole product as a soak test.
"""
