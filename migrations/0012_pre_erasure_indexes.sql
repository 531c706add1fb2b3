-- transactional: false
set lock_timeout = '5s';
set statement_timeout = '1h';

create index concurrently users_closed on users (closed_at) where closed_at is not null and erased_at is null;
create index concurrently account_holds_of_user on account_holds (user_id);
