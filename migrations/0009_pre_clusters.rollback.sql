set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table user_audit alter column xid set default pg_current_xact_id();
drop function audit_go_on();
drop function audit_check_cluster();
drop table audit_clusters;
