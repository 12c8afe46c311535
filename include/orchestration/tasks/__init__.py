"""The steps of the pipelines as Airflow tasks, a module a DAG: each opens its connections and asks
a room below.

Every task tells in counts what it did, in its log and, if it did anything, as its result.  What is
to be done is read from the warehouse: any of them may be killed, cleared, repeated or overlapped.
"""
