"""Embedded Postgres and Airflow as supervised processes on one machine."""
