set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop function audit_retire_partition(text, bigint, bytea);
alter table audit_partitions drop column retired_at;
drop table audit_archive;
