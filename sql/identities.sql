-- name: accept_claims
-- Claim a verified identity under every live version of its index; those that somebody has are not taken again.
insert into identity_claims (kind, index_version, digest, user_id, claimed_at)
select 'pan', c.index_version, c.digest, :user_id, :at
from unnest(:index_versions::smallint[], :digests::bytea[]) as c(index_version, digest)
order by c.index_version, c.digest
on conflict do nothing;

-- name: has_foreign_claim
-- Whether somebody else holds one of these claims.
select exists (
    select from identity_claims c
    join unnest(:index_versions::smallint[], :digests::bytea[]) as w(index_version, digest)
        on c.kind = 'pan' and c.index_version = w.index_version and c.digest = w.digest
    where c.user_id <> :user_id
);

-- name: take_claims
-- Give back what a user holds: the verification that it rested on is gone.
delete from identity_claims where user_id = :user_id;
