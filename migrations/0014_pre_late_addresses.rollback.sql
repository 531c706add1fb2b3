set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table erasures drop column addresses_again_at;
