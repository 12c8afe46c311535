"""A page inside Airflow's UI: the open findings, each with the form that decides it."""
