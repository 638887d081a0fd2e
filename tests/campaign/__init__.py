"""Kills, interrupts and mutates runs over all algorithms, as long as it is told, and says what was lost or falsified.

``python -m tests.campaign --seconds 600 --seed 1``; CONTRIBUTING.md says how to read what it prints.
"""
