set local lock_timeout = '5s';
set local statement_timeout = '60s';

-- The key purpose stays: a label of an enum cannot be taken back, and an older version does not ask for it.
drop table audit_segments;
