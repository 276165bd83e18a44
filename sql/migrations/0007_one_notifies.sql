-- NOTIFY takes a database-wide lock while its transaction commits, so sixteen busy producers that all notify halve each other's rate.
-- One notification wakes the workers as well as sixteen do: of the transactions that are in flight together, one notifies.
--
-- Those that leave it to another hold a shared lock until they have committed. A worker that finds this lock held knows that messages
-- are about to be committed unannounced, and looks again in a few milliseconds instead of going to sleep (claim.sql).

create or replace function outbox.ring() returns trigger
language plpgsql
as $$
begin
    if pg_try_advisory_xact_lock(hashtextextended(tg_table_schema || '.notifies', 0))
       or not pg_try_advisory_xact_lock_shared(hashtextextended(tg_table_schema || '.unannounced', 0)) then
        perform pg_notify(tg_table_schema || '_wakeup', '');
    end if;
    return null;
end
$$;
