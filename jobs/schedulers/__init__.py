"""embatch on schedule: what a scheduler does with an exit code, and an Airflow DAG, cron and systemd over the verbs."""
