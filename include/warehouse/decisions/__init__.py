"""Decisions: a person's answer to a finding, carried out and recorded in one transaction."""

from include.warehouse.decisions.answers import DecisionRefused
from include.warehouse.decisions.resolving import Resolution, held_by, resolve

__all__ = ["DecisionRefused", "Resolution", "held_by", "resolve"]
