"""The rooms of the settlement pipelines.  Imports point down only; a test holds this."""
