"""Row rules defined once, and the gates that apply them between tasks."""
