-- Sequences with next numbers that are in use already, as one JSON array of names. Of the large tables only the first $1 pages are read.
-- $1 int: pages
select coalesce(json_agg(s.name order by s.name), '[]') from outbox.sequences($1) s where s.at < s.highest
