"""Tests and intervals of linear mixed models."""
