"""Judges, intervals and the report: how good the replies of a model are, and how sure one can be."""
