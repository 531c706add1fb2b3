-- name: add_partitions
-- Make the partitions of the months ahead that are missing; the owner's function decides what may be made.
select audit_make_partitions(:months_ahead);

-- name: get_horizon
-- Until when audit rows have a partition to go to.
select max(p.ends_at) from audit_partitions p;
