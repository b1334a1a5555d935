"""Where things are in a checkout, said once."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
PRINTED = TESTS / "seeds" / "printed"
"""The seeds' examples, word for word."""
PATH = f"{TESTS / 'support'}:{TESTS / 'programs'}"
"""PYTHONPATH of a program that imports what the tests share."""
DATA = ROOT.parent / "shared" / "data"
"""Real recordings, beside the checkout where there are any."""
