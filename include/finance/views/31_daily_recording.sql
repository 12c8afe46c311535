CREATE VIEW finance.daily_recording AS
SELECT
    accounting_date,
    source,
    versions,
    corrections,
    late_versions,
    contested_versions,
    (accounting_date + time '01:00' + interval '1 day') AT TIME ZONE 'UTC' AS closes_at,
    now() >= (accounting_date + time '01:00' + interval '1 day') AT TIME ZONE 'UTC' AS is_closed
FROM core.daily_recording;

COMMENT ON VIEW finance.daily_recording IS
    'What was booked on each accounting date, by source. Whatever arrives later is booked on its own day, so the versions of a closed date stay as many as they are. A date on which nothing was recorded has no row.';
COMMENT ON COLUMN finance.daily_recording.accounting_date IS 'The UTC day on which the versions were recorded.';
COMMENT ON COLUMN finance.daily_recording.source IS 'The provider that decided.';
COMMENT ON COLUMN finance.daily_recording.versions IS 'Versions recorded: first decisions, changes and repetitions, also late and contested ones.';
COMMENT ON COLUMN finance.daily_recording.corrections IS 'Of these, the corrections (finance.correction) that are not contested. A version that arrives late between two others can still make one of them a correction, or no longer one.';
COMMENT ON COLUMN finance.daily_recording.late_versions IS 'Of these, decisions that arrived after a later decision about the same subject, and so did not become current.';
COMMENT ON COLUMN finance.daily_recording.contested_versions IS 'Of these, versions that are contested now: a person has to choose.';
COMMENT ON COLUMN finance.daily_recording.closes_at IS 'When the date closes: 01:00 UTC of the next day.';
COMMENT ON COLUMN finance.daily_recording.is_closed IS 'The date is closed.';
