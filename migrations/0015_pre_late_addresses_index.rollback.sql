-- transactional: false
set lock_timeout = '5s';
set statement_timeout = '1h';

drop index concurrently erasures_late;
