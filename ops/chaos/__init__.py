"""Chaos on real processes: faults one after the other on a running lab, and a scorecard of what they cost."""
