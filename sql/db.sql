-- name: check_cluster
-- An error in a cluster that the trail does not know.
select audit_check_cluster();
