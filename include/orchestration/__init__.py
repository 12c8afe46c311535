"""The only room of include/ that imports Airflow: thin task functions around the rooms below."""
