-- Sequences that were left behind. A cut-over by logical replication, a partial restore or setval() may leave a sequence below numbers that
-- are in use. Nothing stops then, because what must be unique is drawn again. But new messages get lower numbers than older ones of
-- their key, and would overtake them.

create function outbox.sequences(pages integer default null) returns table (name text, at bigint, highest bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.name, coalesce(pg_sequence_last_value(s.name::regclass), 0), coalesce(s.highest, 0)
    from (values
        (pg_get_serial_sequence('outbox.message', 'seq'), greatest(
            (select max(m.seq) from outbox.message m where pages is null or m.ctid < format('(%s,0)', pages)::tid),
            (select max(d.seq) from outbox.dead_letter d where pages is null or d.ctid < format('(%s,0)', pages)::tid))),
        (pg_get_serial_sequence('outbox.worker', 'worker_id'), (select max(w.worker_id) from outbox.worker w)),
        (pg_get_serial_sequence('outbox.import', 'import_id'), (select max(i.import_id) from outbox.import i)),
        ('outbox.rule_id', greatest((select max(p.rule_id) from outbox.pause p), (select max(l.rule_id) from outbox.topic_limit l),
                                    (select max(e.rule_id) from outbox.ended_rule e)))
    ) as s (name, highest)
$$;
comment on function outbox.sequences is
    'Each sequence of this schema, the number that it gave last, and the highest that is in use. pages bounds what is read of the large tables.';

create function outbox.advance_sequences() returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    behind record;
begin
    for behind in select s.name, s.highest from outbox.sequences() s where s.at < s.highest loop
        -- Numbers that others draw meanwhile are lower than these by far.
        perform setval(behind.name::regclass, behind.highest + 1000);
        return next behind.name;
    end loop;
end
$$;
comment on function outbox.advance_sequences() is
    'Put each sequence that was left behind above the highest number in use, and return their names. Every outbox migrate does it.';
