"""The wire: one module per external system.  Knows no Airflow and no SQL."""
