set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop function audit_make_partitions(integer);
drop table audit_partitions, user_audit;
drop function user_audit_guard();
drop type access_purpose, actor_kind, audit_action;
