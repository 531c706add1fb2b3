set local lock_timeout = '5s';
set local statement_timeout = '60s';

create index users_created on users (created_at, id) where erased_at is null;
