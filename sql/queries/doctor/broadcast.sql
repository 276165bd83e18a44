-- Whether a broadcast is written, tried and rolled back, as one JSON object: the fault, and whose rights it was tried with.
select json_build_object('fault', outbox.broadcast_fault(), 'owner', quote_ident(pg_get_userbyid(c.relowner)))
from pg_class c where c.oid = 'outbox.message'::regclass
