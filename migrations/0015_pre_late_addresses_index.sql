-- transactional: false
set lock_timeout = '5s';
set statement_timeout = '1h';

create index concurrently erasures_late on erasures (addresses_again_at) where addresses_again_at is not null;
