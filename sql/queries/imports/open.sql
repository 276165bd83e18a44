-- Begin an import, or find the one that has begun. $1 text: name · $2 text: the source's column that identifies a row
insert into outbox.import as i (name, identity)
values ($1, $2)
on conflict (name) do update set name = excluded.name  -- changes nothing, but returns the row
returning
    i.import_id, i.identity, i.rolling_back, i.rollbacks,
    (select count(*) from outbox.imported r where r.import_id = i.import_id) as moved
