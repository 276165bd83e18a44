-- Tries a broadcast and rolls it back. One JSON object: the fault, if any, and the role with which it was tried.
select json_build_object('fault', outbox.broadcast_fault(), 'owner', quote_ident(pg_get_userbyid(c.relowner)))
from pg_class c where c.oid = 'outbox.message'::regclass
