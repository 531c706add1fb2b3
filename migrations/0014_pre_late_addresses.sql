set local lock_timeout = '5s';
set local statement_timeout = '60s';

-- A read that was under way when its person was erased leaves its address behind the erasure: it is forgotten then.
alter table erasures add column addresses_again_at timestamptz;
