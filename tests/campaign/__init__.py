"""Kill, interrupt and mutate runs of all algorithms for a given time, and report lost data and silent changes.

``python -m tests.campaign --seconds 600 --seed 1``; CONTRIBUTING.md explains the output.
"""
