"""Postgres: every table, its migrations and roles, and the transactions that move rows."""
