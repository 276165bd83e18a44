-- The doorbell's button. The notification carries nothing and is only a hint; its channel is `<schema>_wakeup`.

create function outbox.ring() returns trigger
language plpgsql
as $$
begin
    perform pg_notify(tg_table_schema || '_wakeup', '');
    return null;
end
$$;
comment on function outbox.ring() is 'Trigger: wakes the workers that listen, once the transaction commits.';

create function outbox.wake() returns void
language sql
as $$
    select pg_notify(relnamespace::regnamespace::text || '_wakeup', '') from pg_class where oid = 'outbox.message'::regclass
$$;
comment on function outbox.wake() is 'Wakes the workers that listen, once the transaction commits.';

create trigger wakeup after insert on outbox.message
for each statement execute function outbox.ring();
