-- transactional: false
set lock_timeout = '5s';
set statement_timeout = '1h';

drop index concurrently account_holds_of_user;
drop index concurrently users_closed;
