-- An import and its state. $1 text: name
select
    i.import_id, i.identity, i.rolling_back, i.rollbacks,
    (select count(*) from outbox.imported r where r.import_id = i.import_id) as moved
from outbox.import i
where i.name = $1
