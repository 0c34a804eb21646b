"""Hypothesis profile for this folder: a shared machine must not make a test flaky."""

from hypothesis import settings

settings.register_profile("policy", deadline=None, max_examples=100)
settings.load_profile("policy")
